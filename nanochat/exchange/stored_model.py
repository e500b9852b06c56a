"""A checkpoint to be exported: its tensors as they are stored, its config, its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.checkpoint_manager import (
    build_model,
    find_checkpoint,
    load_checkpoint,
    load_tokenizer,
    refuse_non_finite,
)
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.model_spec import ModelSpec
from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """What an export starts from. `state` holds the tensors in the types they were saved in."""

    source: str
    directory: Path
    step: int
    config: GPTConfig
    state: Mapping[str, Tensor]
    tokenizer: Tokenizer
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.source}:{self.directory.name}:{self.step}"

    def native(self, **changes: Any) -> GPT:
        """The model in fp32, with these fields of its config changed."""
        return native_model(replace(self.config, **changes), self.state)


def open_stored(spec: ModelSpec) -> StoredModel:
    """The checkpoint that `spec` names, on the CPU. Raises ValueError when it is missing, damaged,
    or its weights are no numbers.
    """
    directory, step, _ = find_checkpoint(spec.source, spec.tag, spec.step)
    state, _, meta = load_checkpoint(directory, step, "cpu")
    where = str(directory / f"model_{step:06d}.pt")
    refuse_non_finite(state, where)
    config = build_model(state, meta, where).config
    return StoredModel(
        source=spec.source,
        directory=directory,
        step=step,
        config=config,
        state=state,
        tokenizer=load_tokenizer(directory, meta),
        meta=meta,
    )


def native_model(config: GPTConfig, state: Mapping[str, Tensor]) -> GPT:
    """A model that computes in fp32 from these tensors."""
    copies = {name: tensor.float() for name, tensor in state.items()}
    model = build_model(copies, {"model_config": config.to_dict()})
    model.requires_grad_(False).eval()
    model.compute_dtype = torch.float32
    return model
