"""Run records: one small JSON file per section of the report, written by whoever finished that piece of work.

The stages write, the report reads; neither imports the other's code. A record is plain data, so a report can be made
on another machine from a copied `report/` folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

from nanochat.runtime.run_dir import atomic_write, base_dir, code_version, environment

# The order in which sections are read and shown. Names outside this list are refused, so that a
# mistyped section cannot silently vanish from the report.
SECTIONS = (
    "dataset",
    "tokenizer",
    "base_train",
    "base_eval",
    "chat_eval_base",
    "mid_train",
    "chat_eval_mid",
    "chat_sft",
    "chat_eval_sft",
    "chat_rl",
    "chat_eval_rl",
    "exam",
)


PICTURES = "report_files"  # folder beside report.md, named so that a copy of both does not meet another tool's files


def report_dir(base: Path | None = None) -> Path:
    """Folder of the records, `<base>/report`. Not created here."""
    return (base if base is not None else base_dir()) / "report"


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Non-finite floats become None (JSON has no NaN, and a reader in another language would refuse the file), dataclasses
    become dicts, paths and other objects become text, one-element tensors and numpy scalars become numbers.
    """
    if isinstance(value, str):  # half a character, as a model may write it, has no UTF-8 form
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(v) for v in sorted(value, key=repr)]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars, tensors: without importing either library
        return plain(value.tolist())
    return str(value)


def write_record(section: str, data: dict[str, Any], base: Path | None = None) -> Path:
    """Write `<base>/report/<section>.json`, replacing an earlier one in a single step.

    Adds `section`, `written` (Unix time, s), `environment` and `code_version` unless `data` has them. Call it on the
    main rank only. Raises ValueError for an unknown section.
    """
    if section not in SECTIONS:
        raise ValueError(f"report section {section!r} is unknown; use one of: {', '.join(SECTIONS)}")
    record = {
        "section": section,
        "written": time.time(),
        "code_version": code_version(),
        "environment": environment(),
        **data,
    }
    path = report_dir(base) / f"{section}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_records(base: Path | None = None) -> dict[str, dict[str, Any]]:
    """All records there are, section -> record, in the order of SECTIONS.

    Raises ValueError naming the file where one cannot be read: a report that quietly leaves a stage out would mislead.
    """
    found: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        path = report_dir(base) / f"{section}.json"
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not a readable record ({error}); delete it and rerun its stage") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path}: expected a JSON object; delete it and rerun its stage")
        found[section] = record
    return found


def read_metrics(path: str | Path | None) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl` in step order; what a resumed run logs again replaces the earlier values.

    Missing files give an empty list and unreadable lines (a run killed in the middle of a write) are passed over.
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
    """Delete the records and the files the report made (`reset`); other files in the folder stay. Returns what went."""
    folder = report_dir(base)
    made = [folder / f"{s}.json" for s in SECTIONS] + [folder / "report.md", folder / "report.html"]
    gone = [path for path in made if path.is_file()]
    for path in gone:
        path.unlink()
    return gone + clear_pictures(base)
