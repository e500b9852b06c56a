"""MMLU (arXiv 2009.03300): four-choice questions over 57 subjects."""

from __future__ import annotations

from nanochat.tasks.base import Conversation, MultipleChoice
from nanochat.tasks.rows import load_rows

LETTERS = ("A", "B", "C", "D")


class MMLU(MultipleChoice):
    """`split`: test (14,042), validation, dev, or auxiliary_train (about 100,000, for
    midtraining)."""

    name = "MMLU"

    def __init__(self, split: str = "test") -> None:
        self.rows = (
            load_rows("mmlu-auxiliary", "train")
            if split == "auxiliary_train"
            else load_rows("mmlu", split)
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        row = self.rows[self.index(index)]
        row = (
            row.get("train") or row
        )  # the hub's auxiliary_train nests every row in a column of that name
        conversation = self.conversation(
            row["question"], LETTERS, row["choices"], LETTERS[row["answer"]]
        )
        return {**conversation, "subject": row.get("subject", "")}
