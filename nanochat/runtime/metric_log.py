"""Every metric of a run goes to one JSONL file first; Weights & Biases gets a copy when a run name
asks for it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any


class MetricLog:
    """Appends `{"step": ..., "time": ..., **values}` lines to `path`; one line a call, flushed.

    `run` other than "dummy" or "" also logs to W&B (online or offline, as `WANDB_MODE` says). A
    missing or failing W&B is a warning: it never stops a run. `path` None writes nothing (ranks
    other than 0).
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        run: str = "dummy",
        config: dict[str, Any] | None = None,
    ):
        self.path = None if path is None else Path(path)
        self._file = None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
            self._file = open(self.path, "a", encoding="utf-8")
            if torn:  # a killed run left half a line; do not glue the next record to it
                self._file.write("\n")
        self._wandb = (
            _start_wandb(run, config)
            if self._file is not None and run not in ("dummy", "")
            else None
        )

    def log(self, step: int, **values: Any) -> None:
        """One record; numbers may be torch or numpy scalars. A value that is not finite is written
        as null. A list of records, such as samples, is a table in W&B.
        """
        plain = {name: _plain(value) for name, value in values.items()}
        if self._file is not None:
            record = {"step": int(step), "time": round(time.time(), 3), **plain}
            self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
            self._file.flush()
        if self._wandb is not None:
            try:
                tables = {name: _table(value) for name, value in plain.items()}
                self._wandb.log(tables, step=int(step))
            except Exception as error:  # a lost connection must not cost a training run
                print(
                    f"warning: W&B logging stopped ({error}); {self.path} has everything",
                    file=sys.stderr,
                )
                self._wandb = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._wandb is not None:
            try:
                self._wandb.finish()
            except Exception as error:
                print(f"warning: W&B did not finish cleanly ({error})", file=sys.stderr)
            self._wandb = None

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def run_name() -> str:
    """The run's name where none is given: `$WANDB_RUN`, or `dummy`, which is not sent to W&B."""
    return os.environ.get("WANDB_RUN", "").strip() or "dummy"


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


def _table(value: Any) -> Any:
    """A list of dicts with the same names as a W&B table; anything else as it is."""
    if not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return value
    import wandb

    names = list(value[0])
    return wandb.Table(columns=names, data=[[row.get(name) for name in names] for row in value])


def _start_wandb(run: str, config: dict[str, Any] | None) -> Any:
    try:
        import wandb
    except ImportError:
        print(
            f"warning: --run={run}: wandb is not installed, metrics go to metrics.jsonl only; "
            "NANOCHAT_EXTRAS=wandb bash scripts/setup_environment.sh installs it, --run=dummy "
            "silences this",
            file=sys.stderr,
        )
        return None
    try:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nanochat"), name=run, config=config or {}
        )
    except Exception as error:
        print(
            f"warning: --run={run}: W&B did not start ({error}); metrics go to metrics.jsonl only",
            file=sys.stderr,
        )
        return None
