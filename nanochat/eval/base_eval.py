"""CORE of a checkpoint, as a command and as a number for a model in training."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from nanochat.config import Short
from nanochat.eval.core import evaluate_core, read_bundle
from nanochat.eval.results import centered_mean, identify, table
from nanochat.eval.subject import open_subject
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer


@dataclass
class BaseEvalConfig:
    """CORE (arXiv 2406.11794): 22 few-shot tasks, each centred on blind guessing."""

    max_per_task: int = -1
    """Examples of each task; -1 for all."""
    source: Annotated[Literal["base", "mid", "sft", "rl"], Short("-i")] = "base"
    """Stage whose checkpoint is evaluated."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    eval_bundle: str = ""
    """Folder with core.yaml; <base>/eval_bundle when empty."""
    tasks: str = ""
    """Labels of some tasks, separated by |; all when empty. CORE itself needs all."""
    max_tokens: int = -1
    """Tokens forwarded at once; -1 picks by device."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""

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
    """`nanochat base-eval`: CORE of a checkpoint, printed, in its results file and in the
    report.
    """
    labels = [label.strip() for label in cfg.tasks.split("|") if label.strip()]
    asked = read_bundle(cfg.eval_bundle or None, labels)  # before a large model is loaded
    subject = open_subject(
        "base_eval", world, source=cfg.source, model_tag=cfg.model_tag, step=cfg.step
    )
    max_tokens = cfg.max_tokens if cfg.max_tokens > 0 else None
    model, tokenizer = subject.model, subject.tokenizer
    with subject.watched():
        tasks = evaluate_core(model, tokenizer, world, asked, cfg.max_per_task, max_tokens)
    settings = {
        **asdict(cfg),
        "compute_dtype": str(model.compute_dtype),
        "world_size": world.world_size,
    }
    for entry in tasks.values():
        entry["settings"] = settings
    core = None if labels else centered_mean(tasks, tasks)  # of some of the tasks it is not CORE
    document: dict[str, Any] = {"tasks": tasks, "metrics": {} if labels else {"CORE": core}}
    if world.is_main:
        print("\n" + table(tasks, tasks))
        print(
            f"CORE {core:.4f}"
            if core is not None
            else f"CORE: not computed, only {len(labels)} tasks were run"
        )
        means = {} if labels else {"CORE": tuple(tasks)}
        document = subject.results.document(identify(subject.meta, tokenizer), tasks, means=means)
        subject.results.save(document)
        subject.results.save_section("base_eval", document)
    world.barrier()
    return document


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
