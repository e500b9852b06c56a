"""Weights & Biases and TensorBoard get copies of a run's metrics, from a process of their own.

That process follows metrics.jsonl, so a training never waits for a tracker: not for its start, its
network, its memory. Only the end of a run waits for what is still on its way, a bounded time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nanochat.runtime.files import atomic_write
from nanochat.runtime.variables import read_variable

FINISH_S = 60.0  # after the end of a run, for what a tracker has not sent yet
STOPPED_S = 10.0  # the same after a signal, which may be followed by a harder one
IDENTITY = "wandb.json"  # in the folder of a run: which W&B run its metrics belong to
EXTRAS = {"wandb": "wandb", "tensorboard": "tensorboard"}


def run_name() -> str:
    """The run's name where none is given: `$WANDB_RUN`, or `dummy`, which is not sent to W&B."""
    return os.environ.get("WANDB_RUN", "").strip() or "dummy"


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told. `path`: the metrics.jsonl, whose rows from `offset` (bytes) on it
    copies; `step`: that the run goes on after, 0 for a new one. `refused`: why it is not online.
    """

    kind: str
    path: str
    offset: int
    step: int = 0
    name: str = ""
    group: str = ""
    stage: str = ""
    identity: str = ""
    refused: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)


class Tracker:
    """A process that follows one log. It ends by itself when this one does."""

    def __init__(self, tracked: TrackedRun) -> None:
        self.tracked = tracked
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._child = subprocess.Popen(
            [sys.executable, "-m", "nanochat.runtime.tracker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl+C is for the training
            text=True,
        )
        assert self._child.stdin is not None
        with suppress(OSError):  # it has ended already
            self._child.stdin.write(json.dumps(asdict(tracked), default=str) + "\n")
            self._child.stdin.flush()

    def close(self, stopped: bool = False) -> None:
        """Let it copy the rest, and end it after FINISH_S, or STOPPED_S where the run was
        stopped.
        """
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        wait_s = read_variable("NANOCHAT_TRACKER_WAIT_S", FINISH_S)
        wait_s = min(wait_s, STOPPED_S) if stopped else wait_s
        try:
            self._child.wait(wait_s)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(self._child.pid, 9)
            self._child.wait()
            warn(
                f"{self.tracked.kind} did not finish within {wait_s:g} s; {self.tracked.path} has "
                f"everything{sync_hint(Path(self.tracked.path).parent)}"
            )


def start_trackers(
    metrics: Path,
    *,
    run: str,
    stage: str,
    config: dict[str, Any],
    step: int = 0,
    tensorboard: bool = False,
) -> list[Tracker]:
    """The trackers that a run asks for: W&B where `run` is a name, TensorBoard by its flag. Each
    copies what is appended to `metrics` from now on. One that is not installed, or does not start,
    is a warning.

    step: that a run goes on after, 0 for a new one. All stages of a run are one group in W&B.
    """
    kinds = [*["wandb"] * (run not in ("dummy", "")), *["tensorboard"] * tensorboard]
    if os.environ.get("WANDB_MODE", "").strip().lower() == "disabled":
        kinds = [kind for kind in kinds if kind != "wandb"]
    started = []
    for kind in kinds:
        if find_spec(kind) is None:
            warn(
                f"{kind} is not installed, metrics go to metrics.jsonl only; "
                f"NANOCHAT_EXTRAS={EXTRAS[kind]} bash scripts/setup_environment.sh installs it"
                + (", --run=dummy silences this" if kind == "wandb" else "")
            )
            continue
        tracked = TrackedRun(
            kind=kind,
            path=str(metrics.resolve()),
            offset=metrics.stat().st_size if metrics.exists() else 0,
            step=step,
            name=run if stage in ("", "base") else f"{run}-{stage}",
            group=os.environ.get("WANDB_RUN_GROUP", "").strip() or run,
            stage=stage,
            identity=identity(metrics.parent, step) if kind == "wandb" else "",
            config=config,
        )
        try:
            started.append(Tracker(tracked))
        except OSError as error:
            warn(f"{kind} did not start ({error}); metrics go to metrics.jsonl only")
    return started


def identity(folder: Path, step: int) -> str:
    """The id under which W&B knows the run in a folder: that of the stopped one where it goes
    on.
    """
    path = folder / IDENTITY
    known = None
    if step:
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = str(json.loads(path.read_text(encoding="utf-8"))["id"])
    known = known or uuid.uuid4().hex[:12]
    atomic_write(path, json.dumps({"id": known}) + "\n")
    return known


def sync_hint(folder: Path) -> str:
    """How to send what W&B keeps on this disk, where that is known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        directory = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))["directory"]
        return f"; `wandb sync {directory}` sends it later"
    return ""


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
