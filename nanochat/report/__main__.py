"""`python -m nanochat.report reset|generate`, the same as `nanochat report ...`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.config import parse
from nanochat.runtime.entry import run_as_command

USAGE = """\
usage: python -m nanochat.report generate [--hourly-rate USD] [--out FOLDER]
       python -m nanochat.report reset

generate   write report.md and report.html from what the stages have left behind, with a copy in
           the working directory
reset      forget the records of earlier runs, before a new one starts (checkpoints stay)
"""


@dataclass
class ReportConfig:
    """Write report.md and report.html from what the stages have left behind."""

    hourly_rate: float | None = None
    """US dollars for an hour of the whole machine; without it, rough prices of common GPUs, and
    nothing for a CPU.
    """
    out: str = "."
    """Folder for the copies; the originals are in the base directory's report folder."""

    def problems(self) -> list[str]:
        found = []
        if self.hourly_rate is not None and not (
            math.isfinite(self.hourly_rate) and self.hourly_rate >= 0
        ):
            found.append(
                f"--hourly-rate={self.hourly_rate}: give US dollars for an hour, 0 or more"
            )
        if not Path(self.out).is_dir():
            found.append(f"--out={self.out}: is not a folder; make it first or name another")
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run `reset` or `generate`. Raises ValueError for people to read."""
    words = list(sys.argv[1:] if argv is None else argv)
    action, rest = (words[0], words[1:]) if words else ("", [])
    if action in ("-h", "--help", "help"):
        print(USAGE, end="")
    elif action == "generate":
        _generate(parse(ReportConfig, rest, prog="nanochat report generate"))
    elif action == "reset" and not rest:
        _reset()
    elif action == "reset":
        raise ValueError(f"report reset: takes no further words, got {' '.join(rest)!r}")
    else:
        said = f"report {action}".rstrip()
        raise ValueError(f"{said}: use `report generate` or `report reset`")


def _generate(config: ReportConfig) -> None:
    from nanochat.report.generate import generate

    made = generate(config.hourly_rate, copy_to=Path(config.out))
    print(f"wrote {made} and report.html beside it; copies in {Path(config.out).resolve()}")


def _reset() -> None:
    from nanochat.report.stage_records import clear_records, report_dir

    gone = clear_records()
    print(
        f"removed {len(gone)} file{'' if len(gone) == 1 else 's'} of earlier reports from "
        f"{report_dir()}"
    )


if __name__ == "__main__":
    run_as_command(main)
