"""How people name a model: `stage`, `stage:tag` or `stage:tag:step`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nanochat.checkpoint_manager import FOLDERS


@dataclass(frozen=True)
class ModelSpec:
    """A checkpoint as asked for; tag and step None: the largest depth, the newest step."""

    source: str
    tag: str | None = None
    step: int | None = None

    def __str__(self) -> str:
        return ":".join(
            str(part) for part in (self.source, self.tag, self.step) if part is not None
        )


def parse_spec(text: str) -> ModelSpec:
    """`stage`, `stage:tag` or `stage:tag:step`. ValueError with what is wrong."""
    match = re.fullmatch(r"(\w+)(?::([\w.-]+))?(?::(\d+))?", text)
    if match is None or match.group(1) not in FOLDERS:
        stages = ", ".join(FOLDERS)
        raise ValueError(
            f"write stage:tag or stage:tag:step with a stage of {stages}, e.g. sft:d20"
        )
    source, tag, step = match.groups()
    return ModelSpec(source, tag, None if step is None else int(step))
