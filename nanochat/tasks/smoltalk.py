"""SmolTalk (arXiv 2502.02737), or any local folder of conversations in its place."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nanochat.dataset.convert import to_conversation
from nanochat.runtime.errors import rank
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalogue import TASKS
from nanochat.tasks.row_task import RowTask
from nanochat.tasks.task_data import load_rows
from nanochat.tokenizer.chat_format import message_problem


class SmolTalk(RowTask):
    """`split`: train (460,000) or test (24,000). For training only. A system message is folded in
    when rendered.
    """

    takes_lists = True

    def __init__(self, split: str = "train") -> None:
        self._unused: Counter[str] = Counter()
        super().__init__(TASKS["SmolTalk"], load_rows("smoltalk", split))
        if rank() == "0":
            for what, n_rows in sorted(self._unused.items()):
                print(f"{self.rows.origin}: not used: {what} ({n_rows:,} rows)", flush=True)

    def read(self, row: Any) -> Conversation:
        """A file of people's own is held to what --data asks for; of the public rows, which nobody
        here can correct, only that they can be rendered.
        """
        if self.rows.own_file:
            made = to_conversation(row)
            self._unused.update(made.unused)
            return made.conversation
        messages = row.get("messages")
        if problem := message_problem(messages):
            raise ValueError(problem)
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages or []]}
