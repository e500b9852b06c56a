"""What a task is: one object that gives training rows, judges completions and rewards them.

A conversation is a plain dict: `{"messages": [{"role", "content"}, ...]}` where an assistant's
content is a string or a list of parts `{"type": "text"|"python"|"python_output", "text": ...}`. A
task may add keys of its own (such as `letters`) that its `evaluate` reads back; the tokenizer
ignores them. `tool` False asks whoever has the question answered to leave the calculator off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat.tasks.catalogue import Kind, TaskEntry
from nanochat.tasks.content import Content, content_of

Conversation = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """What more there is to say about answers than right and wrong. parts: kind of part -> its name
    -> the verdicts of the answers that belong to it, each 0 or 1; counts: how often what happened;
    cases: answers worth reading, as plain data.
    """

    parts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)


class Task:
    """A list of conversations that can judge an answer to any of its rows.

    What the catalogue says about it becomes `name`, `eval_type` and `baseline` (the score of blind
    guessing, in [0, 1]); tasks outside the catalogue set them in their class. Subclasses implement
    `__len__`, `__getitem__` and, where answers can be judged, `evaluate`.
    """

    name: str = "task"
    eval_type: Kind = "generative"
    baseline: float = 0.0

    def __init__(self, entry: TaskEntry | None = None) -> None:
        if entry is not None:
            self.name = entry.name
            self.eval_type = entry.kind
            self.baseline = entry.baseline

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Conversation:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Conversation]:
        for index in range(len(self)):
            yield self[index]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion` (categorical: the predicted letter) answers the conversation's last
        user turn.
        """
        raise NotImplementedError(f"{self.name} is for training only: it cannot judge an answer")

    def reward(self, conversation: Conversation, completion: str) -> float:
        """What reinforcement learning pays for `completion`, by default 1 for a right answer and 0
        for a wrong one.
        """
        return float(self.evaluate(conversation, completion))

    def second_try(self, conversation: Conversation, completion: str) -> Conversation | None:
        """The conversation in which the model is asked once more, where its answer cannot be right
        and it may be told why; None elsewhere.
        """
        return None

    def breakdown(
        self, conversations: Sequence[Conversation], completions: Sequence[str]
    ) -> Breakdown | None:
        """More about one completion of each conversation; None where there is nothing more."""
        return None

    def content(self) -> Content:
        """What the rows say. Goes through all of them."""
        return content_of(self)

    def index(self, position: int) -> int:
        """`position` as an index from 0, negative ones counted from the end. IndexError outside the
        task.
        """
        length = len(self)
        if not -length <= position < length:
            raise IndexError(f"{self.name} has {length} rows, so there is no row {position}")
        return position % length
