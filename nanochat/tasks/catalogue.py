"""The one list of tasks: their names, kinds, sizes and baselines, the data sets they need, the
parts of the exam, and what the published mixtures consist of. Pure data: `opening` makes tasks
from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nanochat.runtime.suggest import suggestion

Kind = Literal["generative", "categorical"]
WITHOUT_TOOL = "-without-tool"  # ends the name of a task to be answered without the calculator

# --- data sets


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set and its names: `folder` (of JSONL files) on a disk, `hub` and `config` on the hub.

    `splits`: our split -> the hub's. `files`: our split -> file stems to try in the folder, where
    they differ from it. `also`: folders of other data that may stand in.
    """

    title: str
    folder: str
    hub: str
    config: str
    splits: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()

    def stems(self, split: str) -> tuple[str, ...]:
        return self.files.get(split, (split,))


def _named(*splits: str) -> dict[str, str]:
    return {split: split for split in splits}


def _arc(name: str) -> DataSet:
    return DataSet(
        title=name,
        folder=f"arc/{name}",
        hub="allenai/ai2_arc",
        config=name,
        splits=_named("train", "validation", "test"),
        files={"validation": ("validation", "dev")},
    )


DATA_SETS = {
    "gsm8k": DataSet(
        title="GSM8K",
        folder="gsm8k",
        hub="openai/gsm8k",
        config="main",
        splits=_named("train", "test"),
    ),
    "humaneval": DataSet(
        title="HumanEval",
        folder="humaneval",
        hub="openai/openai_humaneval",
        config="openai_humaneval",
        splits=_named("test"),
        files={"test": ("HumanEval", "test")},
    ),
    "mmlu": DataSet(
        title="MMLU",
        folder="mmlu",
        hub="cais/mmlu",
        config="all",
        splits=_named("test", "validation", "dev"),
        files={"validation": ("validation", "val")},
    ),
    "mmlu-auxiliary": DataSet(
        title="MMLU auxiliary_train",
        folder="mmlu",
        hub="cais/mmlu",
        config="auxiliary_train",
        splits=_named("train"),
        files={"train": ("auxiliary_train",)},
    ),
    "arc-easy": _arc("ARC-Easy"),
    "arc-challenge": _arc("ARC-Challenge"),
    "smoltalk": DataSet(
        title="SmolTalk",
        folder="smoltalk",
        hub="HuggingFaceTB/smol-smoltalk",
        config="default",
        splits=_named("train", "test"),
        files={"test": ("test", "val")},
        also=("chat",),
    ),
}

# --- tasks


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """A task. `kind`: whether the model writes an answer or picks a letter. `baseline`: the score
    of blind guessing, in [0, 1].

    `data_set`: where its rows come from; None: they are generated, `train_rows` and `test_rows` of
    them unless asked for otherwise. `rewarded`: reinforcement learning can learn from it.
    """

    name: str
    kind: Kind = "generative"
    baseline: float = 0.0
    data_set: str | None = None
    train_rows: int = 1000
    test_rows: int = 1000
    rewarded: bool = False


@dataclass(frozen=True, kw_only=True)
class WorldPart:
    """A part of the embedded world's conversations. `train_rows`: in its mixture; `unaided_rows`:
    more of them, answered without the calculator. `in_exam`: whether the report shows it.
    """

    train_rows: int
    unaided_rows: int = 0
    exam_rows: int = 200
    in_exam: bool = True
    calculator: bool = False


# With the persona's rows about 2 million tokens, so that one stage sees no row twice. Most replies
# that count in the head say the number at once, two of five show their working: which one pays is
# for reinforcement learning to find.
WORLD_PARTS = {
    "identity": WorldPart(train_rows=4000, exam_rows=240),
    "facts": WorldPart(train_rows=15_000),
    "arithmetic": WorldPart(train_rows=8000, calculator=True),
    "spelling": WorldPart(train_rows=11_000),
    "counting": WorldPart(train_rows=8000, unaided_rows=4500, calculator=True),
    "smalltalk": WorldPart(train_rows=2000, in_exam=False),
    "offtopic": WorldPart(train_rows=1200, in_exam=False),
}


def world_name(part: str, tool: bool = True) -> str:
    """The task that examines a part of the world, with the calculator or without."""
    return f"World-{part}" + ("" if tool else WITHOUT_TOOL)


_BENCHMARKS = (
    TaskEntry(name="ARC-Easy", kind="categorical", baseline=0.25, data_set="arc-easy"),
    TaskEntry(name="ARC-Challenge", kind="categorical", baseline=0.25, data_set="arc-challenge"),
    TaskEntry(name="MMLU", kind="categorical", baseline=0.25, data_set="mmlu"),
    TaskEntry(name="GSM8K", data_set="gsm8k", rewarded=True),
    TaskEntry(name="HumanEval", data_set="humaneval"),
    TaskEntry(name="SpellingBee", train_rows=8000, test_rows=256, rewarded=True),
)
_FOR_TRAINING = (
    TaskEntry(name="SimpleSpelling"),
    TaskEntry(name="SmolTalk", data_set="smoltalk"),
    TaskEntry(name="identity", train_rows=WORLD_PARTS["identity"].train_rows),
)
_WORLD = tuple(
    TaskEntry(
        name=world_name(part),
        train_rows=of.train_rows,
        test_rows=of.exam_rows,
        rewarded=of.in_exam and part != "identity",
    )
    for part, of in WORLD_PARTS.items()
)
SQL = "SQL"  # questions about databases, judged by running the answers
_OWN = (TaskEntry(name=SQL, rewarded=True),)
TASKS = {entry.name: entry for entry in (*_BENCHMARKS, *_FOR_TRAINING, *_WORLD, *_OWN)}

# --- groups

CHATCORE = tuple(entry.name for entry in _BENCHMARKS)
WORLD = tuple(world_name(part) for part, of in WORLD_PARTS.items() if of.in_exam)
UNAIDED = tuple(world_name(part, False) for part, of in WORLD_PARTS.items() if of.calculator)
GROUPS = {"world": WORLD, "chatcore": CHATCORE}
REWARDED = tuple(entry.name for entry in TASKS.values() if entry.rewarded)
REWARDED_TEST_ROWS = 2000  # generated questions that reinforcement learning examines itself on
# The rows of the report's table, in the order that published reports have.
SUMMARY = ("CORE", "ARC-Challenge", "ARC-Easy", "GSM8K", "HumanEval", "MMLU", "ChatCORE")


def named_tasks(
    flag: str, spelled: str, names: Sequence[str], groups: Sequence[str] = ()
) -> list[str]:
    """`gsm8k|world` -> full names, groups expanded, none twice. Case does not matter.

    ValueError naming `flag` for a word that is none of `names` and `groups`, or for no word.
    """
    known = {name.casefold(): (name,) for name in names} | {name: GROUPS[name] for name in groups}
    words = [word.strip() for word in spelled.split("|") if word.strip()]
    unknown = [word for word in words if word.casefold() not in known]
    if unknown or not words:
        near = suggestion(unknown[0] if unknown else "", [*names, *groups])
        raise ValueError(
            f"{flag}={spelled}: unknown task {', '.join(unknown) or '(none given)'}{near} "
            "(several are separated by |)"
        )
    return list(dict.fromkeys(name for word in words for name in known[word.casefold()]))


# --- mixtures


@dataclass(frozen=True, kw_only=True)
class MixtureLine:
    """One source of a mixture: a task's split, its first `rows` (None: all), `epochs` times."""

    task: str
    split: str = "train"
    rows: int | None = None
    epochs: float = 1.0


# Stage -> the published mixture: 848,000 rows to midtrain on, 23,000 to fine-tune on.
PUBLISHED = {
    "mid": (
        MixtureLine(task="SmolTalk"),
        MixtureLine(task="MMLU", split="auxiliary_train"),
        MixtureLine(task="GSM8K"),
        MixtureLine(task="identity", epochs=2),
        MixtureLine(task="SimpleSpelling", rows=200_000),
        MixtureLine(task="SpellingBee", rows=80_000),
    ),
    "sft": (
        MixtureLine(task="ARC-Easy"),
        MixtureLine(task="ARC-Challenge"),
        MixtureLine(task="GSM8K"),
        MixtureLine(task="SmolTalk", rows=10_000),
        MixtureLine(task="identity"),
        MixtureLine(task="SimpleSpelling", rows=300),
        MixtureLine(task="SpellingBee", rows=300),
    ),
}
WORLD_MIXTURE = (
    MixtureLine(task="identity", rows=WORLD_PARTS["identity"].train_rows),
    *(
        MixtureLine(task=world_name(part), rows=of.train_rows)
        for part, of in WORLD_PARTS.items()
        if part != "identity"
    ),
    *(
        MixtureLine(task=world_name(part, tool=False), rows=of.unaided_rows)
        for part, of in WORLD_PARTS.items()
        if of.unaided_rows
    ),
)
