"""Values and their names as people read them: numbers, times, sizes, keys of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: Any) -> str:
    """A value for a table cell: thousands separated, four digits that matter, `-` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        if value == int(value) and abs(value) < 1e15:
            return number(int(value))
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(number(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k}: {number(v)}" for k, v in value.items())
    return str(value)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `42 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def words(key: str) -> str:
    """A key for people, with its unit where the name ends in one."""
    for ending, unit in (("_per_s", " per second"), ("_bytes", ""), ("_s", " (s)")):
        if key.endswith(ending) and len(key) > len(ending):
            key = key[: -len(ending)] + unit
            break
    return key.replace("_", " ")


def row(key: str, value: Any) -> list[str]:
    """A key and its value in its unit, as cells."""
    if key.endswith("_bytes") and not key.endswith("token_bytes"):
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(v, (int, float)) and v >= 1024 for v in values):
            return [words(key), ", ".join(map(size, values))]
    return [words(key), number(value)]


def flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as dotted names; a list of mappings is counted, not shown."""
    if not isinstance(value, Mapping):
        return []
    rows: list[tuple[str, Any]] = []
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            rows += flat(entry, f"{prefix}{key}.")
        elif isinstance(entry, list) and entry and isinstance(entry[0], (Mapping, list)):
            rows.append((f"{prefix}{key}", f"{len(entry)} entries"))
        else:
            rows.append((f"{prefix}{key}", entry))
    return rows
