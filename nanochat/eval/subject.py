"""The checkpoint that is being evaluated: found, looked at, loaded."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from nanochat.checkpoint_manager import find_checkpoint, load_model, weights_path
from nanochat.config import Short
from nanochat.engine.finite import checkpoint_named
from nanochat.eval.results import ResultsFile, identify
from nanochat.gpt import GPT
from nanochat.runtime.precision import NAMES as DTYPES
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer


@dataclass
class SubjectConfig:
    """Which checkpoint an evaluation looks at, and on what."""

    source: Annotated[Literal["base", "mid", "sft", "rl"], Short("-i")] = "base"
    """Stage whose checkpoint is evaluated."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A loaded checkpoint and the file for its results. `meta` as `load_model` returns it;
    `settings`: how it is evaluated.
    """

    model: GPT
    tokenizer: Tokenizer
    meta: dict[str, Any]
    results: ResultsFile
    settings: dict[str, Any]

    def watched(self) -> AbstractContextManager[None]:
        """Within the block a model that computes no numbers is an error that names the
        checkpoint.
        """
        return checkpoint_named(weights_path(self.meta))

    def document(self, tasks: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
        """The results with `tasks` among them; further arguments as for ResultsFile.document."""
        entries = {name: {**entry, "settings": self.settings} for name, entry in tasks.items()}
        return self.results.document(identify(self.meta, self.tokenizer), entries, **more)


def open_subject(kind: str, cfg: SubjectConfig, world: World, dtype: str | None = None) -> Subject:
    """Load the checkpoint, in `dtype` when given, for an evaluation of this kind.

    What would go wrong when results are saved shows here: a damaged results file is a ValueError,
    a folder that may only be read a warning, for the results are printed all the same.
    """
    directory, found_step, _ = find_checkpoint(cfg.source, cfg.model_tag, cfg.step)
    results = ResultsFile(kind, directory, found_step)
    if world.is_main:
        for reason in results.closed.values():
            print(f"warning: {reason}", file=sys.stderr)
    phase = "eval" if dtype is None else "train"
    model, tokenizer, meta = load_model(cfg.source, world.device, phase, cfg.model_tag, cfg.step)
    if dtype is not None:
        model.to(DTYPES[dtype]).requires_grad_(False).eval()
        model.compute_dtype = DTYPES[dtype]
    settings = {
        **asdict(cfg),
        "compute_dtype": str(model.compute_dtype),
        "world_size": world.world_size,
    }
    return Subject(model=model, tokenizer=tokenizer, meta=meta, results=results, settings=settings)
