"""Questions about what lies outside the world: a small model that has only met its own topics
answers any question with one of their facts. A few hundred of these teach it to say that it does
not know.
"""

from __future__ import annotations

import functools
import random
import re

from nanochat.dataset.embedded_world.tables import read_sections

FILE = "offtopic.txt"


@functools.cache
def _slots() -> dict[str, tuple[str, ...]]:
    """Slot -> its fillers, which stand between bars in the file."""
    sections = read_sections(FILE)
    return {name: tuple(" | ".join(lines).split(" | ")) for name, lines in sections.items()}


def held_out_questions() -> tuple[str, ...]:
    """The questions that training never asks."""
    return read_sections(FILE)["exam"]


def question(rng: random.Random) -> str:
    """One question of training."""
    while True:
        wording = rng.choice(read_sections(FILE)["ask"])
        asked = re.sub(r"\{(\w+)\}", lambda slot: rng.choice(_slots()[slot[1]]), wording)
        if asked not in held_out_questions():
            return asked


def replies() -> tuple[str, ...]:
    """Any of these is a right answer to any of the questions."""
    return read_sections("smalltalk.txt")["unknown.reply"]
