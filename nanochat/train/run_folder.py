"""The folder of a run, `<base>/<stage>_checkpoints/<tag>/`: config.yaml, metrics.jsonl, a copy of
the tokenizer, and the checkpoints.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import checkpoint_dir, complete_steps, remove_leftovers
from nanochat.config import as_dict, dump
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.run_dir import atomic_write, base_dir
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import TrainConfig


class RunFolder:
    """`history`: the rows of the log that were there before this run went on."""

    def __init__(self, stage: str, tag: str, world: World) -> None:
        self.path = checkpoint_dir(stage, tag)
        self.metrics = self.path / "metrics.jsonl"
        self.world = world
        self.history: list[dict[str, Any]] = []

    def check_disk(self, one_bytes: int, keep: int) -> None:
        """Raise ValueError when the checkpoints of a run (`keep`, the best, one being written) will
        not fit on the disk.
        """
        place = self.path
        while not place.exists():
            place = place.parent
        wanted = max(1, keep + 2 - len(complete_steps(self.path))) * one_bytes
        free = shutil.disk_usage(place).free
        if wanted > free:
            raise ValueError(
                f"{self.path}: checkpoints need {wanted / 1e9:.1f} GB ({one_bytes / 1e9:.2f} GB "
                f"each) and {free / 1e9:.1f} GB are free; free disk space, lower --keep, or set "
                "NANOCHAT_BASE_DIR to a larger disk"
            )

    def open_log(self, cfg: TrainConfig, tokenizer: Tokenizer, from_step: int) -> MetricLog:
        """The log of a run that goes on after `from_step`, or begins at 0, in a folder made ready
        for it. On ranks other than the main one it writes nothing.
        """
        if not self.world.is_main:
            return MetricLog(None, cfg.run, as_dict(cfg))
        if from_step == 0:
            set_aside(self.path)
            self.metrics.unlink(missing_ok=True)
        self.path.mkdir(parents=True, exist_ok=True)
        self.history = rewind_metrics(self.metrics, from_step)
        remove_leftovers(self.path)
        dump(cfg, self.path / "config.yaml")
        tokenizer.save(self.path / "tokenizer")
        return MetricLog(self.metrics, cfg.run, as_dict(cfg))


def set_aside(directory: Path) -> None:
    """Move the checkpoints of an earlier run out of a fresh one's way, to `previous/` in the base
    directory: its steps must not be taken for newer ones, and whoever forgot `--resume` loses
    nothing. One is kept.
    """
    if not complete_steps(directory):
        return
    target = base_dir() / "previous" / directory.parent.name / directory.name
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(directory, target)
    print(
        f"a fresh start (no --resume): the earlier checkpoints of {directory} are now in {target}",
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
