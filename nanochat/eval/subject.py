"""The checkpoint that is being evaluated: found, looked at, loaded."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from nanochat.checkpoint_manager import find_checkpoint, load_model, weights_path
from nanochat.engine.finite import checkpoint_named
from nanochat.eval.results import ResultsFile
from nanochat.gpt import GPT
from nanochat.runtime.precision import NAMES as DTYPES
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A loaded checkpoint and the file for its results. `meta` as `load_model` returns it."""

    model: GPT
    tokenizer: Tokenizer
    meta: dict[str, Any]
    results: ResultsFile

    def watched(self) -> AbstractContextManager[None]:
        """Within the block a model that computes no numbers is an error that names the
        checkpoint.
        """
        return checkpoint_named(weights_path(self.meta))


def open_subject(
    kind: str,
    world: World,
    *,
    source: str,
    model_tag: str | None,
    step: int | None,
    dtype: str | None = None,
) -> Subject:
    """Load a stage's checkpoint, in `dtype` when given, for an evaluation of this kind.

    What would go wrong when results are saved shows here: a damaged results file is a ValueError,
    a folder that may only be read a warning, for the results are printed all the same.
    """
    directory, found_step, _ = find_checkpoint(source, model_tag, step)
    results = ResultsFile(kind, directory, found_step)
    if world.is_main:
        for reason in results.closed.values():
            print(f"warning: results are printed, not saved: {reason}", file=sys.stderr)
    phase = "eval" if dtype is None else "train"
    model, tokenizer, meta = load_model(source, world.device, phase, model_tag, step)
    if dtype is not None:
        model.to(DTYPES[dtype]).requires_grad_(False).eval()
        model.compute_dtype = DTYPES[dtype]
    return Subject(model=model, tokenizer=tokenizer, meta=meta, results=results)
