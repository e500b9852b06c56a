"""Conversations over the embedded world, and the exam: the same questions on items and wordings
never trained on.
"""

from __future__ import annotations

import random
import re
from typing import Any, Literal

from nanochat.runtime.suggest import suggestion
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TASKS, world_name
from nanochat.tasks.world_judges import judge
from nanochat.tasks.world_turns import MAKERS, Ask, WorldTurn

Split = Literal["train", "exam"]

# Share of training conversations with another exchange before the row's own one, and of those with
# a third.
LONGER, EVEN_LONGER = 0.2, 0.3
EARLIER_PARTS = ("smalltalk", "smalltalk", "facts", "arithmetic", "spelling", "counting")
_CASUAL = 0.05
_QUESTION_WORDS = re.compile(
    r"(?:What|Which|How|Tell|Name|Spell|Count|Do|Can|Where|Calculate|Please|Give|Add|Hello|Hi)\b"
)


class WorldTask(Task):
    """One part of the world: "facts", "arithmetic", "spelling", "counting", "smalltalk" or
    "offtopic" (who the model is has a task of its own, `IdentityTask`).

    split: "train" has conversations of one to three exchanges, the row's own one last; "exam" has
    single questions on held-out items. size: rows (default: the catalogue's). tool: False makes
    arithmetic and counting answer without the calculator. Any row can be read at any time and
    depends on (seed, part, split, index) alone. ValueError for an unknown part or split, or a size
    below 1.
    """

    def __init__(
        self,
        part: str,
        split: Split = "train",
        size: int | None = None,
        seed: int = 0,
        tool: bool = True,
    ) -> None:
        if part not in MAKERS:
            raise ValueError(f"part: {part!r} is unknown{suggestion(part, MAKERS)}")
        if split not in ("train", "exam"):
            raise ValueError(f"split: {split!r} must be 'train' or 'exam'")
        if size is not None and size < 1:
            raise ValueError(f"size: {size} must be 1 or more")
        entry = TASKS[world_name(part)]
        super().__init__(entry)
        self.name = world_name(part, tool)
        self.part = part
        self.split = split
        self.seed = seed
        self.tool = tool
        self._size = size or (entry.test_rows if split == "exam" else entry.train_rows)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Conversation:
        index = self.index(index)
        rng = random.Random(f"{self.seed}:{self.part}:{self.split}:{self.tool}:{index}")
        if self.split == "exam":
            turn = MAKERS[self.part](rng, Ask(index, held_out=True, tool=self.tool))
            return self._row(turn.messages(), turn)
        turn = MAKERS[self.part](rng, Ask(index, held_out=False, tool=self.tool))
        messages = turn.messages()
        messages[0]["content"] = _casual(rng, messages[0]["content"])
        return self._row([*self._earlier(rng), *messages], turn)

    def _row(self, messages: list[dict[str, Any]], turn: WorldTurn) -> Conversation:
        row = {
            "messages": messages,
            "question": turn.question,
            "wanted": turn.wanted,
            "rivals": turn.rivals,
        }
        return row if self.tool else {**row, "tool": False}

    def _earlier(self, rng: random.Random) -> list[dict[str, Any]]:
        """Exchanges that come before the row's own, from any part."""
        if rng.random() >= LONGER:
            return []
        messages: list[dict[str, Any]] = []
        for _ in range(2 if rng.random() < EVEN_LONGER else 1):
            part = rng.choice(EARLIER_PARTS)
            messages += MAKERS[part](rng, Ask(rng.randrange(10**6), held_out=False)).messages()
        return messages

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the completion answers the last question; special tokens in it are understood."""
        return judge(
            self.part,
            conversation["question"],
            conversation["wanted"],
            conversation["rivals"],
            completion,
        )


def _casual(rng: random.Random, question: str) -> str:
    """Now and then the question as people type it: no capital letter, no question mark."""
    if rng.random() >= _CASUAL or not _QUESTION_WORDS.match(question):
        return question
    return question[0].lower() + question[1:].rstrip("?.!")
