"""CORE of a checkpoint, as a command and as a number for a model in training."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from nanochat.eval.core import evaluate_core
from nanochat.eval.core_bundle import read_bundle
from nanochat.eval.results import centered_mean, table
from nanochat.eval.subject import SubjectConfig, open_subject
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer


@dataclass
class BaseEvalConfig(SubjectConfig):
    """CORE (arXiv 2406.11794): 22 few-shot tasks, each centred on blind guessing."""

    max_per_task: int = -1
    """Examples of each task; -1 for all."""
    eval_bundle: str = ""
    """Folder with core.yaml; <base>/eval_bundle when empty."""
    tasks: str = ""
    """Labels of some tasks, separated by |; all when empty. CORE itself needs all."""
    max_tokens: int = -1
    """Tokens forwarded at once; -1 picks by device."""

    def problems(self) -> list[str]:
        found = []
        if self.max_per_task == 0 or self.max_per_task < -1:
            found.append(f"--max-per-task={self.max_per_task}: must be at least 1, or -1 for all")
        if self.max_tokens == 0 or self.max_tokens < -1:
            found.append(
                f"--max-tokens={self.max_tokens}: must be at least 1, or -1 to pick by device"
            )
        return found


def base_eval(cfg: BaseEvalConfig, world: World) -> dict[str, Any]:
    """`nanochat base-eval`: CORE of a checkpoint, printed, in its results file and in the report
    -> label -> entry of each task (see results.scored).
    """
    labels = [label.strip() for label in cfg.tasks.split("|") if label.strip()]
    asked = read_bundle(cfg.eval_bundle or None, labels)  # before a large model is loaded
    subject = open_subject("base_eval", cfg, world)
    with subject.watched():
        tasks = evaluate_core(
            subject.model,
            subject.tokenizer,
            world,
            asked,
            max_per_task=cfg.max_per_task,
            max_tokens=cfg.max_tokens if cfg.max_tokens > 0 else None,
        )
    means = {} if labels else {"CORE": tuple(tasks)}  # of some of the tasks it is not CORE
    if world.is_main:
        print("\n" + table(tasks, tasks))
        core = centered_mean(tasks, tasks)
        print(
            f"CORE: not computed, only {len(labels)} tasks were run"
            if labels
            else f"CORE {core:.4f}"
        )
        document = subject.document(tasks, means=means)
        subject.results.save(document)
        subject.results.save_section("base_eval", document)
    world.barrier()
    return tasks


def core_metric(
    model: GPT, tokenizer: Tokenizer, world: World, max_per_task: int = -1
) -> float | None:
    """CORE of a model in training, for its hook. A missing eval bundle is said and gives None:
    hours of training must not end over it. Leaves the model in its own mode.
    """
    was_training = model.training
    model.eval()
    try:
        entries = evaluate_core(model, tokenizer, world, read_bundle(), max_per_task)
        return centered_mean(entries, entries)
    except ValueError as error:
        if world.is_main:
            print(f"warning: CORE is not measured: {error}", file=sys.stderr, flush=True)
        return None
    finally:
        model.train(was_training)
