"""Run records: one small JSON file per section of the report, written by whoever finished that
piece of work.

The stages write and the report, far above them, reads (`report/records.py`); neither imports the
other's code. A record is plain data, so a report can be made on another machine from a copied
`report/` folder.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import code_version, environment

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


def report_dir(base: Path | None = None) -> Path:
    """Folder of the records, `<base>/report`. Not created here."""
    return (base if base is not None else base_dir()) / "report"


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Non-finite floats become None (JSON has no NaN, and a reader in another language would refuse
    the file), dataclasses become dicts, paths and other objects become text, one-element tensors
    and numpy scalars become numbers.
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
    if hasattr(
        value, "tolist"
    ):  # numpy arrays and scalars, tensors: without importing either library
        return plain(value.tolist())
    return str(value)


def write_record(section: str, data: dict[str, Any], base: Path | None = None) -> Path:
    """Write `<base>/report/<section>.json`, replacing an earlier one in a single step.

    Adds `section`, `written` (Unix time, s), `environment` and `code_version` unless `data` has
    them. Call it on the main rank only. Raises ValueError for an unknown section.
    """
    if section not in SECTIONS:
        raise ValueError(
            f"report section {section!r} is unknown; use one of: {', '.join(SECTIONS)}"
        )
    record = {
        "section": section,
        "written": time.time(),
        "code_version": code_version(),
        "environment": environment(),
        **data,
    }
    path = report_dir(base) / f"{section}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(
        path, json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    return path
