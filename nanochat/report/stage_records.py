"""Reading what the stages have left behind: their records and the metrics of their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.records import SECTIONS, plain, report_dir

# Folder beside report.md, named so that a copy of both does not meet another tool's.
PICTURES = "report_files"


def read_records() -> dict[str, dict[str, Any]]:
    """All records there are, section -> record, in the order of SECTIONS.

    Raises ValueError naming the file where one cannot be read: a report that quietly leaves a stage
    out would mislead.
    """
    found: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        path = report_dir() / f"{section}.json"
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path}: not a readable record ({error}); delete it and rerun its stage"
            ) from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}: expected a JSON object; delete it and rerun its stage")
        found[section] = record
    return found


def read_metrics(name: str | None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` in step order; what a resumed run logs again replaces the
    earlier values.

    The file is found also when the base directory was moved to another place since. A missing one
    gives an empty list, and unreadable lines (a run killed in the middle of a write) are passed
    over.
    """
    path = Path(name or "")
    if not path.is_file():
        path = base_dir().joinpath(*path.parts[-3:])
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.setdefault(row["step"], {}).update(plain(row))
    return [rows[step] for step in sorted(rows)]


def clear_pictures() -> list[Path]:
    """Delete the pictures of an earlier report; returns what went."""
    gone = sorted((report_dir() / PICTURES).glob("plot_*.png"))
    for path in gone:
        path.unlink()
    return gone


def clear_records() -> list[Path]:
    """Delete the records and the files the report made (`reset`); other files in the folder stay.
    Returns what went.
    """
    folder = report_dir()
    made = [*(f"{section}.json" for section in SECTIONS), "report.md", "report.html"]
    gone = [folder / name for name in made if (folder / name).is_file()]
    for path in gone:
        path.unlink()
    return gone + clear_pictures()
