"""Every metric of a run goes to one JSONL file, from which trackers and reports read."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.runtime.records import report_dir
from nanochat.runtime.trackers import Tracker, run_name, start_trackers


class MetricLog:
    """Appends `{"step": ..., "time": ..., **values}` lines to `path`; one line a call, flushed.
    Trackers follow that file. `path` None writes nothing (ranks other than 0).
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        self.trackers: list[Tracker] = []  # ended with the log
        self._file = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
            self._file = open(self.path, "a", encoding="utf-8")
            if torn:  # a killed run left half a line; do not glue the next record to it
                self._file.write("\n")

    def log(self, step: int, **values: Any) -> None:
        """One record; numbers may be torch or numpy scalars. A value that is not finite is written
        as null. A list of records, such as samples, is a table in trackers.
        """
        if self._file is None:
            return
        plain = {name: _plain(value) for name, value in values.items()}
        record = {"step": int(step), "time": round(time.time(), 3), **plain}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self, stopped: bool = False) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        for tracker in self.trackers:
            tracker.close(stopped)
        self.trackers = []

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(stopped=error is not None)


def track_scores(section: str, step: int, scores: Mapping[str, Any]) -> None:
    """The scores of an evaluation as a W&B run of their own, in the group that $WANDB_RUN names;
    nothing where it names none.
    """
    if run_name() == "dummy" or not scores:
        return
    with MetricLog(report_dir() / "tracked" / section / "metrics.jsonl") as log:
        assert log.path is not None
        log.trackers = start_trackers(log.path, run=run_name(), stage=section, config={})
        log.log(step, **scores)


def _plain(value: Any) -> Any:
    """JSON data: scalars of torch and numpy unwrapped, NaN and infinities as None."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value
