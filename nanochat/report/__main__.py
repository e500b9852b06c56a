"""`python -m nanochat.report generate|reset`, the same as `nanochat report ...`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanochat.config import Positional, parse
from nanochat.runtime.entry import run_as_command


@dataclass
class ReportConfig:
    """Write report.md and report.html from what the stages have left behind, or start afresh."""

    action: Positional[Literal["generate", "reset"]]
    """generate writes the report; reset forgets the records of earlier runs (checkpoints stay)."""
    hourly_rate: float | None = None
    """US dollars for an hour of the whole machine; without it, rough prices of common GPUs, and
    nothing for a CPU.
    """
    out: str = "."
    """Folder for the copies; the originals are in the base directory's report folder."""

    def problems(self) -> list[str]:
        found = []
        rate = self.hourly_rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            found.append(f"--hourly-rate={rate}: give US dollars for an hour, 0 or more")
        if not Path(self.out).is_dir():
            found.append(f"--out={self.out}: is not a folder; make it first or name another")
        return found


def report(cfg: ReportConfig) -> str:
    """Run the action; returns the line to print. Raises ValueError for people to read."""
    from nanochat.report.generate import generate
    from nanochat.report.stage_records import clear_records, report_dir

    if cfg.action == "reset":
        n_gone = len(clear_records())
        return f"removed {n_gone} file{'s' * (n_gone != 1)} of earlier reports from {report_dir()}"
    made = generate(cfg.hourly_rate, copy_to=Path(cfg.out))
    return f"wrote {made} and report.html beside it; copies in {Path(cfg.out).resolve()}"


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m nanochat.report`."""
    run_as_command(lambda: report(parse(ReportConfig, argv, prog="python -m nanochat.report")))


if __name__ == "__main__":
    main()
