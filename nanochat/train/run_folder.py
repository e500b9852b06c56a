"""The folder of a run, `<base>/<stage>_checkpoints/<tag>/`: config.yaml, metrics.jsonl, a copy of
the tokenizer, and the checkpoints.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import (
    checkpoint_dir,
    complete_steps,
    remove_leftovers,
    step_files,
    trained_steps,
)
from nanochat.config import as_dict, dump
from nanochat.runtime.base_dir import base_dir, check_writable, nearest_existing
from nanochat.runtime.errors import reason
from nanochat.runtime.files import atomic_write
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.previous import set_aside, sizes
from nanochat.runtime.records import report_dir
from nanochat.runtime.trackers import start_trackers
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import TrainConfig


class RunFolder:
    """`flag`: the one that names it; `history`: the rows of the log that were there before this run
    went on.
    """

    def __init__(self, stage: str, tag: str, world: World) -> None:
        self.stage = stage
        self.path = checkpoint_dir(stage, tag)
        self.metrics = self.path / "metrics.jsonl"
        self.flag = "--model-tag" if stage == "base" else "--tag-out"
        self.world = world
        self.history: list[dict[str, Any]] = []

    def check(
        self, cfg: TrainConfig, checkpoint_bytes: int, source: dict[str, Any] | None = None
    ) -> None:
        """Before anything is written: may the run have this folder, can it write there, and will
        its checkpoints fit? `source`: meta of the checkpoint that the run starts from.

        Raises ValueError on all ranks. Collective.
        """
        problem = None
        if self.world.is_main:
            problem = self._problem(cfg, checkpoint_bytes, source)
        problem = self.world.broadcast_object(problem)
        if problem:
            raise ValueError(problem)

    def _problem(
        self, cfg: TrainConfig, checkpoint_bytes: int, source: dict[str, Any] | None
    ) -> str | None:
        if not cfg.resumes:
            if source is not None and Path(source["directory"]).resolve() == self.path.resolve():
                return (
                    f"{self.path}: the run starts from a checkpoint in this folder (step "
                    f"{source['step']}) and cannot replace it; name another with {self.flag}, "
                    f"e.g. {self.flag}={self.path.name}-2"
                )
            steps = trained_steps(self.path)
            if steps and not cfg.replace:
                return (
                    f"{self.path}: holds what an earlier run trained (steps "
                    f"{', '.join(map(str, steps))}), which a fresh start would replace; go on with "
                    f"it by --resume, name another folder with {self.flag}, or add --replace to "
                    "move it into a dated folder"
                )
        try:
            for folder in (self.path, report_dir()):
                check_writable(
                    folder, "make it so, or set NANOCHAT_BASE_DIR to a folder of your own"
                )
        except ValueError as error:
            return str(error)
        return self._too_full(cfg, checkpoint_bytes)

    def _too_full(self, cfg: TrainConfig, one_bytes: int) -> str | None:
        """The checkpoints of a run are `keep` (two where one is not proven yet), the best, and one
        being written.
        """
        there = len(complete_steps(self.path)) if cfg.resumes else 0
        wanted = max(1, max(cfg.keep, 2) + 2 - there) * one_bytes
        free = shutil.disk_usage(nearest_existing(self.path)).free
        if wanted <= free:
            return None
        return (
            f"{self.path}: checkpoints need {wanted / 1e9:.1f} GB ({one_bytes / 1e9:.2f} GB each) "
            f"and {free / 1e9:.1f} GB are free; free disk space, lower --keep, or set "
            "NANOCHAT_BASE_DIR to a larger disk"
        )

    def open_log(self, cfg: TrainConfig, tokenizer: Tokenizer, from_step: int) -> MetricLog:
        """The log of a run that goes on after `from_step`, or begins at 0, in a folder made ready
        for it. On ranks other than the main one it writes nothing, and is there when the folder is:
        what an earlier run left moves away under nobody's hands. Collective.
        """
        if not self.world.is_main:
            if problem := self.world.broadcast_object(None):
                raise ValueError(problem)
            return MetricLog(None)
        try:
            log = self._made_ready(cfg, tokenizer, from_step)
        except (OSError, ValueError) as error:
            self.world.broadcast_object(f"rank 0 could not prepare {self.path}: {reason(error)}")
            raise
        self.world.broadcast_object(None)
        return log

    def _made_ready(self, cfg: TrainConfig, tokenizer: Tokenizer, from_step: int) -> MetricLog:
        remove_leftovers(self.path)
        self._clear_way(from_step)
        self.path.mkdir(parents=True, exist_ok=True)
        self.history = rewind_metrics(self.metrics, from_step)
        dump(cfg, self.path / "config.yaml")
        tokenizer.save(self.path / "tokenizer")
        log = MetricLog(self.metrics)
        log.trackers = start_trackers(
            self.metrics,
            run=cfg.run,
            stage=self.stage,
            config=as_dict(cfg),
            step=from_step,
            tensorboard=cfg.tensorboard,
        )
        return log

    def _clear_way(self, from_step: int) -> None:
        """Set aside what would be taken for later steps of this run, and the log that goes with it:
        of a fresh start everything, after `--resume-from-step` the steps that are made again.
        """
        later = [step for step in trained_steps(self.path) if step > from_step]
        if not later and (from_step or not self.metrics.exists()):
            return
        only = None
        if from_step:
            only = {path.name for step in later for path in step_files(self.path, step)}
        log = self.metrics.read_bytes() if self.metrics.exists() else b""
        target = set_aside(self.path, base_dir(), only=only)
        if target is None:
            return
        if from_step and log:
            (target / self.metrics.name).write_bytes(log)
        n_files, n_bytes = sizes(target)
        what = f"steps {', '.join(map(str, later))}" if later else "a log without checkpoints"
        print(
            f"set aside: {what} of {self.path} are now in {target} ({n_files} files, "
            f"{n_bytes / 1e9:.2f} GB); delete that folder when you do not need them",
            flush=True,
        )


def rewind_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the rows of a metrics.jsonl that lie after `step`, and half lines; returns the rows that
    stay.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if isinstance(row, dict) and row.get("step", math.inf) <= step:
            rows.append(row)
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows
