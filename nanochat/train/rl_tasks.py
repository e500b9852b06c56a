"""What reinforcement learning asks: questions to learn from, and held-out ones of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.runtime.errors import rank
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import (
    REWARDED,
    REWARDED_TEST_ROWS,
    WITHOUT_TOOL,
    named_tasks,
    world_name,
)
from nanochat.tasks.derived import Mixture
from nanochat.tasks.opening import open_task
from nanochat.tasks.task_data import DataNotFound

FALLBACK = world_name("counting", tool=False)
NAMES = (*REWARDED, *(name + WITHOUT_TOOL for name in REWARDED))


@dataclass(frozen=True)
class Questions:
    """The tasks of a run: all of them mixed to learn from, each on its own to be examined on."""

    train: Task
    held_out: dict[str, Task]


def task_names(spelled: str) -> list[str]:
    """`world-counting-without-tool|GSM8K` -> full names. ValueError for an unknown one."""
    return named_tasks("--task", spelled, NAMES)


def questions(spelled: str, seed: int) -> Questions:
    """The tasks named in `spelled`, or what `auto` finds. DataNotFound says how to get a data set
    that is absent.
    """
    if spelled == "auto":
        try:
            return questions("GSM8K", seed)
        except DataNotFound as absent:
            if rank() == "0":
                print(f"--task=auto: learning {FALLBACK}: {absent}", flush=True)
            return questions(FALLBACK, seed)
    names = task_names(spelled)
    train = [open_task(name, "train") for name in names]
    held_out = {name: open_task(name, "test", REWARDED_TEST_ROWS) for name in names}
    return Questions(train[0] if len(train) == 1 else Mixture(train, seed), held_out)
