"""Reading what the stages have left behind: their records and the metrics of their runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanochat.runtime.records import SECTIONS, plain, report_dir, write_record

__all__ = [
    "SECTIONS",
    "clear_pictures",
    "clear_records",
    "read_metrics",
    "read_records",
    "report_dir",
    "write_record",
]
# folder beside report.md, named so that a copy of both does not meet another tool's files
PICTURES = "report_files"


def read_records(base: Path | None = None) -> dict[str, dict[str, Any]]:
    """All records there are, section -> record, in the order of SECTIONS.

    Raises ValueError naming the file where one cannot be read: a report that quietly leaves a stage
    out would mislead.
    """
    found: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        path = report_dir(base) / f"{section}.json"
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path}: not a readable record ({error}); delete it and rerun its stage"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}: expected a JSON object; delete it and rerun its stage")
        found[section] = record
    return found


def read_metrics(path: str | Path | None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` in step order; what a resumed run logs again replaces the
    earlier values.

    Missing files give an empty list and unreadable lines (a run killed in the middle of a write)
    are passed over.
    """
    if not path or not Path(path).is_file():
        return []
    rows: dict[int, dict[str, Any]] = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.setdefault(row["step"], {}).update(plain(row))
    return [rows[step] for step in sorted(rows)]


def clear_pictures(base: Path | None = None) -> list[Path]:
    """Delete the pictures of an earlier report; returns what went."""
    gone = sorted((report_dir(base) / PICTURES).glob("plot_*.png"))
    for path in gone:
        path.unlink()
    return gone


def clear_records(base: Path | None = None) -> list[Path]:
    """Delete the records and the files the report made (`reset`); other files in the folder stay.
    Returns what went.
    """
    folder = report_dir(base)
    made = [folder / f"{s}.json" for s in SECTIONS] + [folder / "report.md", folder / "report.html"]
    gone = [path for path in made if path.is_file()]
    for path in gone:
        path.unlink()
    return gone + clear_pictures(base)
