"""Chat evaluation: which tasks there are, what they need, and one run over some of them.

ChatCORE is the mean over six tasks of (score - baseline) / (1 - baseline), like CORE for base
models.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from nanochat.checkpoint_manager import load_model
from nanochat.config import Short
from nanochat.dataset.shards import read_manifest
from nanochat.engine import Engine
from nanochat.eval.base_suite import (
    BaseEvalConfig,
    BaseLossConfig,
    base_eval,
    base_loss,
    core_metric,
)
from nanochat.eval.choice import evaluate_choice
from nanochat.eval.generative import Answered, AnswerSampling, evaluate_generative
from nanochat.eval.results import centered_mean, save_results, scored, table, write_section
from nanochat.gpt import GPT
from nanochat.runtime.precision import NAMES as DTYPES
from nanochat.runtime.run_dir import base_dir
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import CHATCORE, UNAIDED, WORLD, named_tasks
from nanochat.tasks.opening import open_task
from nanochat.tasks.sandbox import CageUnavailable
from nanochat.tasks.task_data import DataNotFound
from nanochat.tokenizer import Tokenizer

__all__ = [
    "BaseEvalConfig",
    "BaseLossConfig",
    "ChatEvalConfig",
    "base_eval",
    "base_loss",
    "chat_eval",
    "core_metric",
    "run_chat_eval",
]

SUBSET_SEED = 1337
SHOWN_SAMPLES = 3


@dataclass
class ChatEvalConfig:
    """Score a chat model on benchmark tasks and on the embedded world's exam."""

    source: Annotated[Literal["base", "mid", "sft", "rl"], Short("-i")] = "sft"
    """Stage whose checkpoint is evaluated."""
    task_name: Annotated[str | None, Short("-a")] = None
    """Tasks separated by |, `world` for the exam, `chatcore` for its six; all that can be found
    when not given.
    """
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, Short("-d")] = None
    """Compute type; picked by the device when not given."""
    temperature: Annotated[float, Short("-t")] = 0.0
    """0 is greedy."""
    max_new_tokens: Annotated[int, Short("-m")] = 512
    """Longest answer."""
    num_samples: Annotated[int, Short("-n")] = 1
    """Answers to each problem; with several, the score is pass@1 and pass@k is shown beside it."""
    top_k: Annotated[int, Short("-k")] = 50
    """Sample from the k likeliest tokens; 0 for all."""
    batch_size: Annotated[int, Short("-b")] = 32
    """Answers written at the same time."""
    max_problems: Annotated[int | None, Short("-x")] = None
    """Problems of each task: a fixed random subset. All when not given."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""
    unsafe_exec: bool = False
    """Run model-written code even where no sandbox can be built. Only on a machine you can lose."""
    seed: int = 42
    """Seed of the sampled answers."""

    def problems(self) -> list[str]:
        least = {
            "max_new_tokens": 1,
            "num_samples": 1,
            "top_k": 0,
            "batch_size": 1,
            "max_problems": 1,
            "seed": 0,
        }
        found = [
            f"--{name.replace('_', '-')}={getattr(self, name)}: must be at least {low}"
            for name, low in least.items()
            if getattr(self, name) is not None and getattr(self, name) < low
        ]
        if not self.temperature >= 0:
            found.append(f"--temperature={self.temperature}: must be 0 (greedy) or more")
        try:
            task_names(self.task_name)
        except ValueError as error:
            found.append(str(error))
        return found


def task_names(spelled: str | None) -> list[str] | None:
    """`GSM8K|world` -> full names; None for None. ValueError for an unknown one."""
    if spelled is None:
        return None
    return named_tasks(
        "--task-name", spelled, (*CHATCORE, *WORLD, *UNAIDED), groups=("chatcore", "world")
    )


def open_tasks(cfg: ChatEvalConfig) -> tuple[dict[str, Task], dict[str, str]]:
    """(tasks that can be run, name -> why not). With tasks asked for by name, one that cannot be
    run is an error. So are, in any case, rows that do not fit.
    """
    asked = task_names(cfg.task_name)
    names: Sequence[str] = asked or CHATCORE
    if asked is None and read_manifest(base_dir() / "base_data").get("kind") == "embedded":
        names = (*CHATCORE, *WORLD)  # a model of the embedded world is also given its exam
    tasks, absent = {}, {}
    for name in names:
        try:
            tasks[name] = open_task(name, unsafe_exec=cfg.unsafe_exec)
        except DataNotFound as error:
            absent[name] = str(error)
        except CageUnavailable as error:
            absent[name] = f"{name} cannot be run: {error}"
    if absent and (asked or not tasks):
        raise ValueError("\n".join(absent.values()))
    return tasks, absent


def choose_problems(n: int, max_problems: int | None) -> list[int]:
    """Indices of the problems: all in order, or a fixed random subset (data sets are often sorted
    by subject).
    """
    if max_problems is None or max_problems >= n:
        return list(range(n))
    order = list(range(n))
    random.Random(SUBSET_SEED).shuffle(order)
    return order[:max_problems]


def run_chat_eval(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: dict[str, Task],
    world: World,
    sampling: AnswerSampling | None = None,
    batch_size: int = 32,
    max_problems: int | None = None,
    on_result: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate `tasks` -> name -> entry (see results.scored), the same on every rank. Also for
    hooks in training.
    """
    sampling = sampling or AnswerSampling()
    step_tokens = 8192 if model.get_device().type == "cuda" else 512
    engine = Engine(
        model, tokenizer, max_running=batch_size, max_step_tokens=max(step_tokens, batch_size)
    )
    results = {}
    for name, task in tasks.items():
        started = time.monotonic()
        problems = choose_problems(len(task), max_problems)
        if task.eval_type == "categorical":
            right = evaluate_choice(model, tokenizer, task, world, problems)
            entry = scored(right, task.baseline, eval_type=task.eval_type)
        else:
            answers = evaluate_generative(engine, task, world, problems, sampling)
            entry = scored([a.pass_at(1) for a in answers], task.baseline, eval_type=task.eval_type)
            entry |= _details(task, problems, answers, sampling)
        results[name] = {**entry, "problems": problems, "wall_s": time.monotonic() - started}
        if on_result is not None:
            on_result(name, results[name])
    return results


def _details(
    task: Task, problems: list[int], answers: list[Answered], sampling: AnswerSampling
) -> dict[str, Any]:
    """pass@k for k = 1, 2, 4 ... n, and a few right and wrong answers to read."""
    ks, samples = (
        [k for k in (1, 2, 4, 8, 16, 32, 64) if k < sampling.num_samples] + [sampling.num_samples],
        [],
    )
    for verdict in (True, False):
        with_verdict = [i for i, answer in enumerate(answers) if answer.correct[0] == verdict]
        for i in with_verdict[:SHOWN_SAMPLES]:
            question = task[problems[i]]["messages"][-2]["content"]
            samples.append(
                {"prompt": question, "completion": answers[i].texts[0], "correct": verdict}
            )
    return {
        "pass_at": {str(k): sum(a.pass_at(k) for a in answers) / len(answers) for k in ks}
        if answers
        else {},
        "samples": samples,
    }


def load_for_eval(
    source: str, world: World, model_tag: str | None, step: int | None, dtype: str | None = None
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """`load_model` for evaluation, in `dtype` when given."""
    if dtype is None:
        return load_model(source, world.device, "eval", model_tag, step)
    model, tokenizer, meta = load_model(source, world.device, "train", model_tag, step)
    model.to(DTYPES[dtype]).requires_grad_(False).eval()
    model.compute_dtype = DTYPES[dtype]
    return model, tokenizer, meta


def chat_eval(cfg: ChatEvalConfig, world: World) -> dict[str, Any]:
    """`nanochat chat-eval`: evaluate, print the table, write the results file and the report's
    sections.

    Raises ValueError for a missing checkpoint, an unknown task, or a task asked for by name whose
    data is absent.
    """
    tasks, absent = open_tasks(cfg)
    model, tokenizer, meta = load_for_eval(cfg.source, world, cfg.model_tag, cfg.step, cfg.dtype)
    if world.is_main:
        for reason in absent.values():
            print(f"warning: left out: {reason}", file=sys.stderr)
        if cfg.num_samples > 1 and cfg.temperature == 0:
            print(
                "warning: --temperature=0 makes all samples of a problem the same", file=sys.stderr
            )

    def show(name: str, entry: dict[str, Any]) -> None:
        if world.is_main:
            print(
                f"{name}: {entry['score']:.4f} [{entry['low']:.4f}, {entry['high']:.4f}] of "
                f"{entry['n']}",
                flush=True,
            )

    sampling = AnswerSampling(
        cfg.max_new_tokens, cfg.temperature, cfg.top_k or None, cfg.num_samples, cfg.seed
    )
    torch.manual_seed(cfg.seed)
    results = run_chat_eval(
        model, tokenizer, tasks, world, sampling, cfg.batch_size, cfg.max_problems, show
    )
    settings = {
        **asdict(cfg),
        "compute_dtype": str(model.compute_dtype),
        "world_size": world.world_size,
    }
    for entry in results.values():
        entry["settings"] = settings
    document: dict[str, Any] = {"tasks": results, "not_found": absent}
    if world.is_main:
        path, document = save_results("chat_eval", meta, tokenizer, results, not_found=absent)
        report(path, document, cfg.source)
    world.barrier()
    return document


def report(path: Path, document: dict[str, Any], source: str) -> None:
    """Print the table of everything known about these weights and write the report's sections."""
    done = document["tasks"]
    print("\n" + table(done, [name for name in (*CHATCORE, *WORLD, *UNAIDED) if name in done]))
    for name in document["not_found"]:
        print(f"{name}: NOT FOUND, not in the table")
    core = centered_mean(done, CHATCORE)
    if core is None:
        print(
            "ChatCORE: not computed, without "
            f"{', '.join(name for name in CHATCORE if name not in done)}"
        )
    else:
        print(f"ChatCORE {core:.4f}")
        document = {**document, "metrics": {**document["metrics"], "ChatCORE": core}}
    print(f"results: {path}")
    write_section(f"chat_eval_{source}", document)
    if any(name in done for name in WORLD):
        write_section("exam", document, WORLD)
