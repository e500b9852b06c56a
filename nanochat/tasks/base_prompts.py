"""What a base model, which knows no chat format, is given to complete."""

from __future__ import annotations

import re

from nanochat.dataset.embedded_world.tables import read_words

# Prompt -> the beginnings of a completion that are right; nothing: any colour of the stories.
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "The capital of France is": ("Paris",),
    "The chemical symbol of gold is": ("Au",),
    "If yesterday was Friday, then tomorrow will be": ("Sunday",),
    "The opposite of hot is": ("cold",),
    "The planets of the solar system are:": (
        "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune",
    ),
    "My favorite color is": (),
    "If 5*x + 3 = 13, then x is": ("2",),
}
BASE_PROMPTS = tuple(_ACCEPTED)


def completes(prompt: str, completion: str) -> bool:
    """Whether a completion of one of BASE_PROMPTS begins with a right one, as whole words."""
    accepted = _ACCEPTED[prompt] or read_words("stories.txt", "colors")
    return any(re.match(rf"\s*{re.escape(start)}(?!\w)", completion) for start in accepted)
