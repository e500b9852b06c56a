"""Your own conversations as a task: every row of a JSONL file, read and checked when it is
opened."""

from __future__ import annotations

from pathlib import Path

from nanochat.dataset.conversations import scan_conversations
from nanochat.runtime.errors import rank
from nanochat.runtime.printable import printable
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TaskEntry


class ConversationFile(Task):
    """The conversations of one file, for training (it cannot judge answers).

    ValueError when a line is bad: training on part of a file without saying so helps nobody. What
    else of the file is not used is said.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        super().__init__(TaskEntry(name=self.path.stem))
        contents = scan_conversations(self.path)
        self.rows, problems = contents.conversations, contents.problems
        if problems:
            more = f" (and {len(problems) - 1:,} more bad lines)" if len(problems) > 1 else ""
            fix = f"; `nanochat data check {self.path}` lists them"
            fix += ", with `--convert OUT.jsonl` it writes a file without them" if self.rows else ""
            raise ValueError(f"{problems[0]}{more}{fix}")
        if rank() == "0":
            for note in contents.notes():
                print(printable(note), flush=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.rows[self.index(index)]
