"""Which checkpoint is to be served, and the engine over it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nanochat.checkpoint_manager import FOLDERS, load_model
from nanochat.engine import Engine
from nanochat.engine.quantize import quantize_int8

MIN_STEP_TOKENS = 512


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


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """What an engine is made of, in this process or another. `threads` 0: as many as torch likes."""

    spec: ModelSpec
    device: str
    int8: bool = False
    max_running: int = 32
    threads: int = 0


def load_engine(setup: EngineSetup) -> Engine:
    spec = setup.spec
    model, tokenizer, _ = load_model(
        spec.source, setup.device, phase="eval", model_tag=spec.tag, step=spec.step
    )
    if setup.int8:
        quantize_int8(model)
    return Engine(
        model,
        tokenizer,
        max_running=setup.max_running,
        max_step_tokens=max(MIN_STEP_TOKENS, setup.max_running),
    )
