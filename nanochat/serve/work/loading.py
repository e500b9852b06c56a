"""Which checkpoint is to be served, and the engine over it."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.checkpoint_manager import load_model
from nanochat.engine import Engine
from nanochat.engine.quantize import quantize_int8
from nanochat.model_spec import ModelSpec

MIN_STEP_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class EngineSetup:
    """What an engine is made of, in this process or another. `threads` 0: torch's choice."""

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
