"""What is decided about a run before its first step. It goes into every checkpoint's meta file and
into the record for the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nanochat.config import as_dict
from nanochat.runtime.machine import code_version
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import TrainConfig
from nanochat.train.derive import Settings
from nanochat.train.micro_batch import MicroBatch


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """`tokenizer`: its identity; `parent`: the checkpoint that a later stage starts from;
    `mixture`: the conversations it learns, source by source; `data`: name -> digest of all that it
    learns from.
    """

    stage: str
    cfg: TrainConfig
    settings: Settings
    micro: MicroBatch
    n_steps: int
    tokenizer: str
    parent: dict[str, Any] | None = None
    mixture: tuple[dict[str, Any], ...] = ()
    data: dict[str, str] = field(default_factory=dict)

    def settings_dict(self) -> dict[str, Any]:
        """All that is derived, with the steps that were counted."""
        return {**asdict(self.settings), **asdict(self.micro), "n_steps": self.n_steps}

    def meta(self) -> dict[str, Any]:
        """The parts of a meta file that stay the same all through the run."""
        return {
            "stage": self.stage,
            "recipe": self.settings.recipe,
            "model_config": self.settings.model_config.to_dict(),
            "user_config": as_dict(self.cfg),
            "settings": self.settings_dict(),
            "device_batch_size": self.micro.device_batch_size,
            "max_seq_len": self.settings.seq_len,
            "total_batch_size": self.settings.total_batch_size,
            "tokenizer": self.tokenizer,
            "code_version": code_version(),
            "parent": self.parent,
            "mixture": list(self.mixture),
            "data": self.data,
        }


def run_facts(
    stage: str,
    cfg: TrainConfig,
    settings: Settings,
    micro: MicroBatch,
    tokenizer: Tokenizer,
    *,
    n_steps: int | None,
    source: dict[str, Any] | None = None,
    mixture: Sequence[dict[str, Any]] = (),
    data: dict[str, str] | None = None,
) -> RunFacts:
    """`source`: meta of the checkpoint that a later stage starts from, as `load_model` gives it.
    `data`: by default the sources of the mixture.
    """
    assert n_steps is not None
    parent = None
    if source is not None:
        parent = {name: source.get(name) for name in ("source", "directory", "step", "files")}
    return RunFacts(
        stage=stage,
        cfg=cfg,
        settings=settings,
        micro=micro,
        n_steps=n_steps,
        tokenizer=tokenizer.identity(),
        parent=parent,
        mixture=tuple(mixture),
        data=data or {row["source"]: row["hash"] for row in mixture},
    )
