"""MMLU (arXiv 2009.03300): four-choice questions over 57 subjects."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.multiple_choice import MultipleChoice
from nanochat.tasks.row_task import RowTask, shown, text_of
from nanochat.tasks.task_data import load_rows

LETTERS = ("A", "B", "C", "D")


class MMLU(MultipleChoice, RowTask):
    """`split`: test (14,042), validation, dev, or auxiliary_train (about 100,000, for
    midtraining)."""

    def __init__(self, split: str = "test") -> None:
        if split == "auxiliary_train":
            rows = load_rows("mmlu-auxiliary", "train")
        else:
            rows = load_rows("mmlu", split)
        super().__init__(TASKS["MMLU"], rows)

    def read(self, row: dict[str, Any]) -> Conversation:
        if isinstance(row.get("train"), dict):  # the hub's auxiliary_train nests every row so
            row = row["train"]
        choices, answer = row.get("choices"), row.get("answer")
        if not isinstance(choices, list) or [type(choice) for choice in choices] != [str] * 4:
            raise ValueError(f"choices: must be a list of 4 texts, got {shown(row, 'choices')}")
        if type(answer) is not int or not 0 <= answer < len(LETTERS):
            raise ValueError(
                f"answer: must be a number from 0 (A) to 3 (D), got {shown(row, 'answer')}"
            )
        question = text_of(row, "question", may_be_blank=True)  # some choose between sentences
        conversation = self.conversation(question, LETTERS, choices, LETTERS[answer])
        return {**conversation, "subject": row.get("subject", "")}
