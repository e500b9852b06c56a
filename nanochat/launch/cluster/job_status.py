"""Where the jobs are: what the queue says, and how far each has come by its own files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.launch.cluster.settings import seconds
from nanochat.runtime.programs import output_of
from nanochat.runtime.progress import clock

STAGES = {"base": "base", "mid": "mid", "sft": "chatsft", "rl": "chatrl"}  # stage -> its folder
SIGNAL_S = 180  # before the time limit a run saves: #SBATCH --signal of the batch scripts
TAIL_BYTES = 64 * 1024
HEADS = ("job", "state", "stage", "step", "loss", "time left", "next requeue", "where or why")


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """What a job's folder under the base directory and its run's metrics say."""

    stage: str = ""
    tag: str = ""
    step: int | None = None
    loss: float | None = None

    def __str__(self) -> str:
        parts = [self.stage, self.tag]
        parts += [] if self.step is None else [f"step {self.step}"]
        parts += [] if self.loss is None else [f"loss {self.loss:.4f}"]
        return " ".join(filter(None, parts))


def job_progress(base: Path, job: str) -> JobProgress:
    """Empty where the job has not begun, or is none of ours."""
    try:
        stage, tag = (base / "slurm" / job / "running").read_text().split()
    except (OSError, ValueError):
        return JobProgress()
    if stage not in STAGES:
        return JobProgress(stage=stage, tag=tag)
    row = last_row(base / f"{STAGES[stage]}_checkpoints" / tag / "metrics.jsonl")
    return JobProgress(stage=stage, tag=tag, step=row.get("step"), loss=row.get("train_loss"))


def last_row(path: Path) -> dict[str, Any]:
    """The last row of a log that has a loss; {} where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # half a line
            continue
        if isinstance(row, dict) and isinstance(row.get("train_loss"), (int, float)):
            return row
    return {}


def status_table(base: Path, user: str) -> str:
    """One row for each of the user's jobs. Raises ValueError where there is no SLURM."""
    text = output_of("squeue", "-h", "-u", user, "-o", "%i|%A|%j|%T|%L|%N|%r")
    if text is None:
        raise ValueError("cluster status: `squeue` is not here or does not answer")
    rows = [_row(base, *line.split("|", 6)) for line in text.splitlines() if line.count("|") >= 6]
    if not rows:
        return f"no jobs of {user} in the queue"
    widths = [max(len(row[i]) for row in [HEADS, *rows]) for i in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEADS, *rows]
    )


def _row(base: Path, *told: str) -> tuple[str, ...]:
    """The cells under HEADS, from a line of squeue."""
    shown, job, name, state, left, nodes, why = told
    at = job_progress(base, job)
    running = state == "RUNNING"
    left_s = seconds(left) if running else None
    restarts = restarts_of(job)
    return (
        f"{shown} {name}" + (f" (restart {restarts})" if restarts else ""),
        state.lower(),
        " ".join(filter(None, (at.stage, at.tag))) or "-",
        "-" if at.step is None else str(at.step),
        "-" if at.loss is None else f"{at.loss:.4f}",
        left if running else "-",
        "-" if left_s is None else f"in {clock(max(0, left_s - SIGNAL_S))}",
        nodes if running else why,
    )


def restarts_of(job: str) -> int:
    match = re.search(r"\bRestarts=(\d+)", output_of("scontrol", "show", "job", job) or "")
    return int(match[1]) if match else 0
