"""Chat evaluation as a command: which tasks, of which checkpoint, and what is said about them.

ChatCORE is the mean over six tasks of (score - baseline) / (1 - baseline), like CORE for base
models.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from nanochat.config import Short
from nanochat.dataset.shards import read_manifest
from nanochat.eval.generative import AnswerSampling
from nanochat.eval.results import centered_mean, table
from nanochat.eval.subject import Subject, SubjectConfig, open_subject
from nanochat.eval.suite import run_chat_eval
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import CHATCORE, SQL, UNAIDED, WORLD, named_tasks, world_name
from nanochat.tasks.identity_task import identity_exam
from nanochat.tasks.opening import open_task
from nanochat.tasks.sandbox import CageUnavailable
from nanochat.tasks.task_data import DataNotFound

IDENTITY = world_name("identity")


@dataclass
class ChatEvalConfig(SubjectConfig):
    """Score a chat model on benchmark tasks and on the embedded world's exam."""

    source: Annotated[Literal["base", "mid", "sft", "rl"], Short("-i")] = "sft"
    """Stage whose checkpoint is evaluated."""
    task_name: Annotated[str | None, Short("-a")] = None
    """Tasks separated by |, `world` for the exam, `chatcore` for its six, SQL for questions about
    databases; all that can be found but SQL when not given.
    """
    sql_data: str | None = None
    """File of questions for the task SQL, as `nanochat sql build` writes; by default sql/test.jsonl
    in the task data.
    """
    knowledge: str | None = None
    """Folder for the task SQL: of its definitions, pages and past queries the few that fit a
    question are put before it.
    """
    gate: bool = False
    """Task SQL: ask once more, with the reason, for an answer that the dialect does not
    understand, as chat does.
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
        "--task-name", spelled, (*CHATCORE, *WORLD, *UNAIDED, SQL), groups=("chatcore", "world")
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
            tasks[name] = open_task(
                name,
                unsafe_exec=cfg.unsafe_exec,
                sql_data=cfg.sql_data,
                knowledge=cfg.knowledge,
                gate=cfg.gate,
            )
        except DataNotFound as error:
            absent[name] = str(error)
        except CageUnavailable as error:
            absent[name] = f"{name} cannot be run: {error}"
    if absent and (asked or not tasks):
        raise ValueError("\n".join(absent.values()))
    return tasks, absent


def chat_eval(cfg: ChatEvalConfig, world: World) -> dict[str, Any]:
    """`nanochat chat-eval`: evaluate, print the table, write the results file and the report's
    sections -> name -> entry of each task evaluated.

    Raises ValueError for a missing checkpoint, an unknown task, or a task asked for by name whose
    data is absent.
    """
    tasks, absent = open_tasks(cfg)
    subject = open_subject("chat_eval", cfg, world, cfg.dtype)
    if IDENTITY in tasks:
        try:
            tasks[IDENTITY] = identity_exam(subject.meta)
        except ValueError as error:
            if len(tasks) == 1:
                raise
            absent[IDENTITY] = f"{IDENTITY}: {error}"
            del tasks[IDENTITY]
    if world.is_main:
        for reason in absent.values():
            print(f"warning: left out: {reason}", file=sys.stderr)
        if cfg.num_samples > 1 and cfg.temperature == 0:
            print(
                "warning: --temperature=0 makes all samples of a problem the same", file=sys.stderr
            )
    torch.manual_seed(cfg.seed)
    with subject.watched():
        results = run_chat_eval(
            subject.model,
            subject.tokenizer,
            tasks,
            world,
            sampling=AnswerSampling(
                max_new_tokens=cfg.max_new_tokens,
                temperature=cfg.temperature,
                top_k=cfg.top_k or None,
                num_samples=cfg.num_samples,
                seed=cfg.seed,
            ),
            batch_size=cfg.batch_size,
            max_problems=cfg.max_problems,
            on_result=show if world.is_main else None,
        )
    if world.is_main:
        report(subject, subject.document(results, not_found=absent))
    world.barrier()
    return results


def show(name: str, entry: dict[str, Any]) -> None:
    interval = f"[{entry['low']:.4f}, {entry['high']:.4f}]"
    print(f"{name}: {entry['score']:.4f} {interval} of {entry['n']}", flush=True)
    for kind, parts in entry.get("parts", {}).items():
        for part, of in parts.items():
            told = f"{of['score']:.4f} [{of['low']:.4f}, {of['high']:.4f}] of {of['n']}"
            print(f"  {kind} {part}: {told}", flush=True)
    if entry.get("counts"):
        print("  " + ", ".join(f"{n:,} {what}" for what, n in entry["counts"].items()), flush=True)


def report(subject: Subject, document: dict[str, Any]) -> None:
    """Print the table of everything known about these weights, then save it and the report's
    sections.
    """
    done = document["tasks"]
    print("\n" + table(done, [name for name in (*CHATCORE, *WORLD, *UNAIDED, SQL) if name in done]))
    for name in document["not_found"]:
        print(f"{name}: NOT FOUND, not in the table")
    core = centered_mean(done, CHATCORE)
    reported = document
    if core is None:
        left_out = ", ".join(name for name in CHATCORE if name not in done)
        print(f"ChatCORE: not computed, without {left_out}")
    else:
        print(f"ChatCORE {core:.4f}")
        reported = {**document, "metrics": {**document["metrics"], "ChatCORE": core}}
    subject.results.save(document)
    subject.results.save_section(f"chat_eval_{document['source']}", reported)
    if any(name in done for name in WORLD):
        subject.results.save_section("exam", document, WORLD)
