"""What reinforcement learning asks: questions to learn from, and held-out ones of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

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
from nanochat.train.fallback import fall_back

FALLBACK = world_name("counting", tool=False)
NAMES = (*REWARDED, *(name + WITHOUT_TOOL for name in REWARDED))


@dataclass(frozen=True)
class Questions:
    """The tasks of a run: all of them mixed to learn from, each on its own to be examined on.
    `notice`: what the run's owner must be told; empty when nothing.
    """

    train: Task
    held_out: dict[str, Task]
    notice: str = ""


def task_names(spelled: str) -> list[str]:
    """`world-counting-without-tool|GSM8K` -> full names. ValueError for an unknown one."""
    return named_tasks("--task", spelled, NAMES)


def questions(
    spelled: str, seed: int, device_type: str | None = None, sql_data: str | None = None
) -> Questions:
    """The tasks named in `spelled`, or what `auto` finds; `sql_data`: the file of the task SQL.
    DataNotFound says how to get a data set that is absent.
    """
    names = ["GSM8K"] if spelled == "auto" else task_names(spelled)
    notice = ""
    try:
        train = [open_task(name, "train", sql_data=sql_data) for name in names]
    except DataNotFound as absent:
        if spelled != "auto":
            raise
        notice = fall_back("--task", str(absent), FALLBACK, device_type)
        names = [FALLBACK]
        train = [open_task(FALLBACK, "train")]
    held_out = {
        name: open_task(name, "test", REWARDED_TEST_ROWS, sql_data=sql_data) for name in names
    }
    mixed = train[0] if len(train) == 1 else Mixture(train, seed)
    return Questions(mixed, held_out, notice)
