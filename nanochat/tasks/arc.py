"""ARC (arXiv 1803.05457): school science questions, the Easy and the Challenge set."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation, MultipleChoice
from nanochat.tasks.rows import load_rows

SUBSETS = {"ARC-Easy": "arc-easy", "ARC-Challenge": "arc-challenge"}


class ARC(MultipleChoice):
    """`subset`: ARC-Easy or ARC-Challenge; `split`: train, validation or test. Three to five
    choices a question.
    """

    def __init__(self, subset: str, split: str = "test") -> None:
        if subset not in SUBSETS:
            raise ValueError(f"subset: {subset!r} is unknown; use {' or '.join(SUBSETS)}")
        self.name = subset
        self.rows = load_rows(SUBSETS[subset], split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        question, letters, choices, answer = read_row(self.rows[self.index(index)])
        return self.conversation(question, letters, choices, answer)


def read_row(row: dict[str, Any]) -> tuple[str, list[str], list[str], str]:
    """(question, letters, choices, right letter) from the original release's rows or from the
    hub's.

    The original has `question: {stem, choices: [{text, label}]}`, the hub `question` and `choices:
    {text, label}`. Letters stay as published: A to E, or 1 to 4 in the questions of some states.
    """
    if isinstance(row["question"], dict):
        options = row["question"]["choices"]
        letters, choices = (
            [option["label"] for option in options],
            [option["text"] for option in options],
        )
        return row["question"]["stem"], letters, choices, row["answerKey"]
    return (
        row["question"],
        list(row["choices"]["label"]),
        list(row["choices"]["text"]),
        row["answerKey"],
    )
