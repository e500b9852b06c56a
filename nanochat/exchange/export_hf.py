"""`nanochat export hf MODEL OUT`: a checkpoint for Hugging Face transformers and what reads its
layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nanochat.config import Positional
from nanochat.exchange.divergence import softcap_divergence
from nanochat.exchange.fresh_place import fresh_place
from nanochat.exchange.hf_folder import StoredType, write_hf
from nanochat.exchange.model_card import model_card
from nanochat.exchange.native_runtime import NativeRuntime
from nanochat.exchange.optional_module import NotInstalled
from nanochat.exchange.probes import PROMPTS
from nanochat.exchange.self_check import (
    Check,
    compare,
    prompt_ids,
    refuse_failed,
    rotary_note,
)
from nanochat.exchange.stock_classes import extras
from nanochat.exchange.stored_model import StoredModel, native_model, open_stored
from nanochat.exchange.transformers_runtime import TransformersRuntime
from nanochat.model_spec import parse_spec
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.files import atomic_write

LOGIT_LIMIT = 1e-3  # both compute in fp32, in another order


@dataclass
class ExportConfig:
    """Write a checkpoint in another program's format, and check it there."""

    model: Positional[str]
    """The checkpoint: stage[:tag[:step]] such as sft:d20."""
    out: Positional[str]
    """Where to write."""
    check: bool = True
    """Load the export in the program it is for, where that is installed, and compare."""
    replace: bool = False
    """Write over what is there."""

    def problems(self) -> list[str]:
        try:
            parse_spec(self.model)
        except ValueError as error:
            return [f"{self.model}: {error}"]
        return []


@dataclass
class HFExportConfig(ExportConfig):
    """Write a checkpoint as a folder for Hugging Face transformers, vLLM and SGLang, and check it
    there.
    """

    stock: bool = False
    """A classic model as an Apertus one, a class that these programs bring themselves: exact but
    for the softcap.
    """
    dtype: StoredType = "keep"
    """Type of the weights; keep: as they are in the checkpoint."""


def export_hf(cfg: HFExportConfig) -> list[Check]:
    """Write the folder; prints and returns what checking it found. Raises ValueError when the
    check fails, and leaves no folder then.
    """
    model = open_stored(parse_spec(cfg.model))
    out = expanded(cfg.out)
    with fresh_place(out, cfg.replace) as folder:
        write_hf(model, folder, stock=cfg.stock, dtype=cfg.dtype)
        checks, told = check_hf(model, folder, cfg) if cfg.check else ([], ["not checked"])
        notes = [line for check in checks for line in check.lines()] + told
        atomic_write(
            folder / "README.md", model_card(model, "hf-stock" if cfg.stock else "hf", notes)
        )
        print("\n".join(notes))
        refuse_failed(checks, out)
    print(f"{model.name} -> {out}")
    return checks


def check_hf(
    model: StoredModel, folder: Path, cfg: HFExportConfig, texts: Sequence[str] = PROMPTS
) -> tuple[list[Check], list[str]]:
    """What transformers makes of the folder, and what is to be said besides."""
    stored = model.state
    if cfg.dtype != "keep":
        stored = {name: tensor.to(getattr(torch, cfg.dtype)) for name, tensor in stored.items()}
    exact = replace(model.config, rope_bf16=model.config.rope_bf16 and bool(extras(model.config)))
    ours = NativeRuntime(native_model(exact, stored), model.tokenizer)
    told = []
    if cfg.stock:
        prompts = prompt_ids(model.tokenizer, exact.sequence_len, texts)
        told.append(softcap_divergence(ours.model, prompts).line())
    try:
        other = TransformersRuntime(folder)
    except NotInstalled as error:
        return [], [*told, f"not checked: {error}"]
    softcap = exact.logit_softcap if cfg.stock else None
    check = compare(ours, other, logit_limit=LOGIT_LIMIT, softcap=softcap, texts=texts)
    if not exact.rope_bf16:
        check.notes += rotary_note(model, ours, texts)
    return [check], told
