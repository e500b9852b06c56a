"""ARC (arXiv 1803.05457): school science questions, the Easy and the Challenge set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.multiple_choice import MultipleChoice
from nanochat.tasks.row_task import RowTask, shown, text_of
from nanochat.tasks.task_data import load_rows

SUBSETS = ("ARC-Easy", "ARC-Challenge")


class ARC(MultipleChoice, RowTask):
    """`subset`: ARC-Easy or ARC-Challenge; `split`: train, validation or test. Three to five
    choices a question.
    """

    def __init__(self, subset: str, split: str = "test") -> None:
        if subset not in SUBSETS:
            raise ValueError(f"subset: {subset!r} is unknown; use {' or '.join(SUBSETS)}")
        entry = TASKS[subset]
        super().__init__(entry, load_rows(str(entry.data_set), split))

    def read(self, row: dict[str, Any]) -> Conversation:
        question, letters, choices = _question(row)
        problem = choices_problem(letters, choices)
        if problem:
            raise ValueError(problem)
        return self.conversation(question, letters, choices, text_of(row, "answerKey"))


def _question(row: dict[str, Any]) -> tuple[str, list[Any], list[Any]]:
    """(question, letters, choices) from the original release's rows or from the hub's.

    The original has `question: {stem, choices: [{text, label}]}`, the hub `question` and `choices:
    {text, label}`. Letters stay as published: A to E, or 1 to 4 in the questions of some states.
    """
    if isinstance(row.get("question"), dict):
        question = row["question"]
        options = question.get("choices")
        if not isinstance(options, list) or not all(isinstance(o, dict) for o in options):
            raise ValueError(f"question.choices: must be a list of objects, got {options!r:.80}")
        texts = [option.get("text") for option in options]
        return text_of(question, "stem"), [option.get("label") for option in options], texts
    options = row.get("choices")
    if not isinstance(options, Mapping) or not all(
        isinstance(options.get(name), list) for name in ("label", "text")
    ):
        raise ValueError(
            f"choices: must hold lists called label and text, got {shown(row, 'choices')}"
        )
    return text_of(row, "question"), options["label"], options["text"]


def choices_problem(letters: list[Any], choices: list[Any]) -> str | None:
    """What is wrong with a question's labels and choices, or None."""
    if len(letters) < 2 or len(letters) != len(choices):
        return f"choices: {len(choices)} texts with {len(letters)} labels; give 2 or more of both"
    if not all(isinstance(text, str) for text in (*letters, *choices)):
        return f"choices: labels and texts must be text, got {[*letters, *choices]!r:.80}"
    if len(set(letters)) < len(letters):
        return f"choices: the labels {letters} are not all different"
    return None
