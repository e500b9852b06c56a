"""What reinforcement learning asks: questions to learn from, and held-out ones of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.runtime.errors import rank
from nanochat.tasks.base import Mixture, Task, WithoutTool
from nanochat.tasks.rows import DataNotFound

WITHOUT_TOOL = "-without-tool"
WORLD_PARTS = ("facts", "arithmetic", "spelling", "counting")
NAMES = ("GSM8K", "SpellingBee", *(f"World-{part}" for part in WORLD_PARTS))
HELD_OUT_ROWS = 2000  # of the tasks that are generated
SPELLING_BEE_ROWS = 8000
FALLBACK = "World-counting-without-tool"


@dataclass(frozen=True)
class Questions:
    """The tasks of a run: all of them mixed to learn from, each on its own to be examined on."""

    train: Task
    held_out: dict[str, Task]


def task_names(spelled: str) -> list[str]:
    """`world-counting-without-tool|GSM8K` -> full names. Case does not matter. ValueError for an
    unknown one.
    """
    known = {
        name.lower() + ending: name + ending for name in NAMES for ending in ("", WITHOUT_TOOL)
    }
    words = [word.strip().lower() for word in spelled.split("|") if word.strip()]
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise ValueError(
            f"--task={spelled}: unknown task {', '.join(unknown) or '(none given)'}; use auto, "
            "or some of "
            f"{', '.join(NAMES)}, each also with {WITHOUT_TOOL} after it, separated by |"
        )
    return list(dict.fromkeys(known[word] for word in words))


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
    tasks = {name: open_task(name) for name in task_names(spelled)}
    train = [train for train, _ in tasks.values()]
    held_out = {name: held_out for name, (_, held_out) in tasks.items()}
    return Questions(train[0] if len(train) == 1 else Mixture(train, seed), held_out)


def open_task(name: str) -> tuple[Task, Task]:
    """(training questions, held-out questions) of one task."""
    plain = name.removesuffix(WITHOUT_TOOL)
    train, held_out = _world(name) if plain.startswith("World-") else _benchmark(plain)
    if plain == name or plain.startswith("World-"):
        return train, held_out
    return WithoutTool(train), WithoutTool(held_out)


def _world(name: str) -> tuple[Task, Task]:
    from nanochat.tasks.world_exam import WorldTask

    plain = name.removesuffix(WITHOUT_TOOL)
    part, tool = plain.removeprefix("World-"), plain == name
    train, held_out = WorldTask(part, tool=tool), WorldTask(part, "exam", HELD_OUT_ROWS, tool=tool)
    train.name = held_out.name = name
    return train, held_out


def _benchmark(name: str) -> tuple[Task, Task]:
    if name == "GSM8K":
        from nanochat.tasks.gsm8k import GSM8K

        return GSM8K("train"), GSM8K("test")
    from nanochat.tasks.spellingbee import SpellingBee

    return SpellingBee(SPELLING_BEE_ROWS, "train"), SpellingBee(HELD_OUT_ROWS, "test")
