"""Opening a task by its name in the catalogue."""

from __future__ import annotations

from typing import Literal

from nanochat.tasks.arc import ARC, SUBSETS
from nanochat.tasks.base import Task
from nanochat.tasks.catalogue import SQL, TASKS, WITHOUT_TOOL
from nanochat.tasks.derived import WithoutTool
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.identity_task import IdentityTask
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.sandbox import choose_cage
from nanochat.tasks.smoltalk import SmolTalk
from nanochat.tasks.spellingbee import SimpleSpelling, SpellingBee
from nanochat.tasks.world_task import WorldTask

WORLD_PREFIX = "World-"


def open_task(
    name: str,
    split: str = "test",
    rows: int | None = None,
    persona: str | None = None,
    unsafe_exec: bool = False,
    *,
    sql_data: str | None = None,
    knowledge: str | None = None,
    gate: bool = False,
) -> Task:
    """The task of that name; its rows are checked when this returns.

    `rows`: how many of a generated task (default: the catalogue's). `persona`: the YAML file the
    identity speaks for. `unsafe_exec`: see HumanEval. `sql_data`, `knowledge`, `gate`: see
    `SQLTask`.
    Raises DataNotFound, ValueError for rows that do not fit, CageUnavailable where HumanEval or
    SQL could not be judged.
    """
    plain = name.removesuffix(WITHOUT_TOOL)
    entry = TASKS[plain]
    size = rows or (entry.train_rows if split == "train" else entry.test_rows)
    if plain == SQL:
        return _sql(split, sql_data, unsafe_exec, knowledge, gate)
    part = plain.removeprefix(WORLD_PREFIX)
    if part == "identity":
        return IdentityTask(persona, _world_split(split), size)
    if plain.startswith(WORLD_PREFIX):
        return WorldTask(part, _world_split(split), size, tool=plain == name)
    task = _benchmark(plain, split, size, unsafe_exec)
    return task if plain == name else WithoutTool(task)


def _sql(
    split: str, data: str | None, unsafe_exec: bool, knowledge: str | None, gate: bool
) -> Task:
    from nanochat.tasks.sql_task import SQLTask  # which needs the extra [sql]

    choose_cage(unsafe_exec)
    return SQLTask(split, data, unsafe_exec, knowledge, gate)


def _world_split(split: str) -> Literal["train", "exam"]:
    return "train" if split == "train" else "exam"


def _benchmark(name: str, split: str, size: int, unsafe_exec: bool) -> Task:
    if name in SUBSETS:
        return ARC(name, split)
    if name == "MMLU":
        return MMLU(split)
    if name == "GSM8K":
        return GSM8K(split)
    if name == "SmolTalk":
        return SmolTalk(split)
    if name == "SpellingBee":
        return SpellingBee(size, split)
    if name == "SimpleSpelling":
        return SimpleSpelling(size, split)
    assert name == "HumanEval", name
    human_eval = HumanEval(split, unsafe_exec)
    choose_cage(unsafe_exec)  # now, not after the answers have been written
    return human_eval
