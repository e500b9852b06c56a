"""Your own conversations as a task: every row of a JSONL file, read and checked when it is
opened."""

from __future__ import annotations

from pathlib import Path

from nanochat.dataset.conversations import read_conversations
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TaskEntry


class ConversationFile(Task):
    """The conversations of one file, for training (it cannot judge answers).

    ValueError when a line is bad: training on part of a file without saying so helps nobody.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        super().__init__(TaskEntry(name=self.path.stem))
        self.rows, problems = read_conversations(self.path)
        if problems:
            more = f" (and {len(problems) - 1:,} more bad lines)" if len(problems) > 1 else ""
            fix = f"; `nanochat data check {self.path}` lists them"
            fix += ", with `--convert OUT.jsonl` it writes a file without them" if self.rows else ""
            raise ValueError(f"{problems[0]}{more}{fix}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.rows[self.index(index)]
