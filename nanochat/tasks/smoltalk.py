"""SmolTalk (arXiv 2502.02737), or any local folder of conversations in its place."""

from __future__ import annotations

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.rows import load_rows


class SmolTalk(Task):
    """`split`: train (460,000) or test (24,000). For training only. A system message is folded in
    when rendered.
    """

    name = "SmolTalk"

    def __init__(self, split: str = "train") -> None:
        self.rows = load_rows("smoltalk", split)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        messages = self.rows[self.index(index)]["messages"]
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}
