"""Conversations over the embedded world, and the exam: the same questions on items and wordings
never trained on.
"""

from __future__ import annotations

import random
import re
from typing import Any, Literal

from nanochat.dataset.embedded_world.tables import read_words
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.world_parts import PARTS, Ask, WorldTurn, judge

Split = Literal["train", "exam"]

# Training rows of each part in the default mixture; the exam has 200 of each.
# With the 4,000 of the persona about 2 million tokens, so that one stage sees no row twice.
TRAIN_ROWS = {
    "facts": 15_000,
    "arithmetic": 8000,
    "spelling": 11_000,
    "counting": 8000,
    "smalltalk": 2000,
    "offtopic": 1200,
}
# Rows, besides those, of letters to be counted without the calculator. Most replies say the number
# at once, two of five show their working: which one pays is for reinforcement learning to find.
HEAD_ROWS = {"counting": 4500}
EXAM_ROWS = 200
# Share of training conversations with another exchange before the row's own one, and of those with
# a third.
LONGER, EVEN_LONGER = 0.2, 0.3
_CASUAL = 0.05
_QUESTION_WORDS = re.compile(
    r"(?:What|Which|How|Tell|Name|Spell|Count|Do|Can|Where|Calculate|Please|Give|Add|Hello|Hi)\b"
)


def exam_parts() -> list[str]:
    """The parts of the exam, in the order of the report."""
    return ["identity", "facts", "arithmetic", "spelling", "counting"]


def world_parts() -> list[str]:
    """Every part there is a WorldTask for."""
    return ["identity", *PARTS]


def base_prompts() -> list[tuple[str, list[str]]]:
    """The prompts that a base model is to complete, each with the beginnings of a completion that
    are right.
    """
    return [
        ("The capital of France is", ["Paris"]),
        ("The chemical symbol of gold is", ["Au"]),
        ("If yesterday was Friday, then tomorrow will be", ["Sunday"]),
        ("The opposite of hot is", ["cold"]),
        (
            "The planets of the solar system are:",
            ["Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune"],
        ),
        ("My favorite color is", list(read_words("stories.txt", "colors"))),
        ("If 5*x + 3 = 13, then x is", ["2"]),
    ]


def completes(completion: str, accepted: list[str]) -> bool:
    """Whether a base model's completion begins with one of the accepted ones, as whole words."""
    return any(re.match(rf"\s*{re.escape(start)}(?!\w)", completion) for start in accepted)


class WorldTask(Task):
    """One part of the world: "identity", "facts", "arithmetic", "spelling", "counting", "smalltalk"
    or "offtopic".

    split: "train" has conversations of one to three exchanges, the row's own one last; "exam" has
    single questions on held-out items. size: rows (default: TRAIN_ROWS or EXAM_ROWS). tool: False
    makes arithmetic and counting answer without the calculator. persona: the YAML file that the
    identity part speaks for (default: built in). Any row can be read at any time and depends on
    (seed, part, split, index) alone. ValueError for an unknown part or split, or a size below 1.
    """

    def __init__(
        self,
        part: str,
        split: Split = "train",
        size: int | None = None,
        seed: int = 0,
        tool: bool = True,
        persona: str | None = None,
    ) -> None:
        if part not in world_parts():
            raise ValueError(f"part: {part!r} is not one of {', '.join(world_parts())}")
        if split not in ("train", "exam"):
            raise ValueError(f"split: {split!r} must be 'train' or 'exam'")
        if size is not None and size < 1:
            raise ValueError(f"size: {size} must be 1 or more")
        self.part, self.split, self.seed, self.tool = part, split, seed, tool
        self.name = f"world-{part}" if tool else f"world-{part}-without-tool"
        self._inner = _identity(persona, split) if part == "identity" else None
        self._size = size or self._default_size()

    def _default_size(self) -> int:
        if self._inner is not None:
            return len(self._inner)
        return EXAM_ROWS if self.split == "exam" else TRAIN_ROWS[self.part]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Conversation:
        index = self.index(index)
        if self._inner is not None:
            return self._inner[index % len(self._inner)]
        rng = random.Random(f"{self.seed}:{self.part}:{self.split}:{self.tool}:{index}")
        if self.split == "exam":
            turn = PARTS[self.part](rng, Ask(index, held_out=True, tool=self.tool))
            return self._row(turn.messages(), turn)
        turn = PARTS[self.part](rng, Ask(index, held_out=False, tool=self.tool))
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
            part = rng.choice(
                ("smalltalk", "smalltalk", "facts", "arithmetic", "spelling", "counting")
            )
            messages += PARTS[part](rng, Ask(rng.randrange(10**6), held_out=False)).messages()
        return messages

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the completion answers the last question; special tokens in it are understood."""
        if self._inner is not None:
            return self._inner.evaluate(conversation, completion)
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


def _identity(persona: str | None, split: Split) -> Task:
    from nanochat.dataset.persona import as_persona
    from nanochat.tasks.identity_exam import IdentityTask

    return IdentityTask(
        as_persona(persona), split
    )  # a persona, not None: training and exam must be about the same one


def training_tasks(persona: str | None = None, seed: int = 0) -> list[Task]:
    """What mid-training and fine-tuning on the embedded world learn: TRAIN_ROWS and HEAD_ROWS of
    every part.
    """
    tasks: list[Task] = [
        WorldTask(part, "train", seed=seed, persona=persona) for part in world_parts()
    ]
    return tasks + [
        WorldTask(part, "train", n_rows, seed, tool=False) for part, n_rows in HEAD_ROWS.items()
    ]
