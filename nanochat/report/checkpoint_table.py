"""What checkpoints there are: a row for each, from what they and their evaluations recorded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import FOLDERS, complete_steps, read_meta
from nanochat.report.blocks import Block, Heading, Table, Text
from nanochat.report.machine_hours import stage_cost
from nanochat.report.quantities import number
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.files import atomic_write
from nanochat.runtime.records import report_dir

NOTES = "notes.json"
EVALUATIONS = ("base_eval", "chat_eval", "base_loss")
SHOWN_HASH = 8
HEADER = ("model", "trained", "parent", "code", "data", "hours", "USD", "scores", "notes")


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """A checkpoint. data: source -> (rows, epochs, hash). scores: task or metric -> value. hours:
    of its own stage; usd None: not known.
    """

    stage: str
    tag: str
    step: int
    folder: Path
    meta: Mapping[str, Any]
    saved: float
    parent: str = ""
    data: Mapping[str, tuple[Any, Any, str]] = field(default_factory=dict)
    hours: float | None = None
    usd: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.stage}:{self.tag}:{self.step}"

    @property
    def code(self) -> str:
        return str(self.meta.get("code_version") or "-")


def checkpoint_rows(hourly_rate: float | None = None) -> list[CheckpointRow]:
    """Every complete checkpoint of the base directory, stage by stage, the oldest first."""
    records = _records_by_hash()
    found = []
    for stage, folder in FOLDERS.items():
        for directory in sorted((base_dir() / folder).glob("*")):
            if directory.is_dir() and not directory.name.startswith("."):
                found += [
                    _row(stage, directory, step, records, hourly_rate)
                    for step in complete_steps(directory)
                ]
    return found


def _row(
    stage: str,
    directory: Path,
    step: int,
    records: Mapping[str, Mapping[str, Any]],
    hourly_rate: float | None,
) -> CheckpointRow:
    meta = read_meta(directory, step)
    own_hash = (meta.get("files") or {}).get(f"model_{step:06d}.pt", {}).get("sha256", "")
    train_s = (meta.get("trainer") or {}).get("train_s")
    usd = None
    if train_s is not None:
        record = {**records.get(own_hash, {}), "wall_s": train_s}
        known = own_hash in records or hourly_rate is not None
        cost = stage_cost(stage, record, hourly_rate) if known else None
        usd = cost.usd if cost is not None else None
    return CheckpointRow(
        stage=stage,
        tag=directory.name,
        step=step,
        folder=directory,
        meta=meta,
        saved=(directory / f"meta_{step:06d}.json").stat().st_mtime,
        parent=_parent(meta),
        data=_data(meta),
        hours=None if train_s is None else train_s / 3600,
        usd=usd,
        scores=_scores(directory, step, meta),
        notes=tuple(note["text"] for note in read_notes(directory).get(str(step), ())),
    )


def _records_by_hash() -> dict[str, Mapping[str, Any]]:
    """Hash of a model -> the record of the run that saved it, which knows the machine."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(report_dir().glob("*.json")):
        record = _read_json(path)
        checkpoint = record.get("checkpoint")
        if isinstance(checkpoint, dict) and "sha256" in checkpoint:
            found[str(checkpoint["sha256"])] = record
    return found


def _read_json(path: Path) -> dict[str, Any]:
    """A file of plain data; empty where it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parent(meta: Mapping[str, Any]) -> str:
    parent = meta.get("parent")
    if not isinstance(parent, Mapping) or not parent.get("directory"):
        return ""
    return f"{parent.get('source')}:{Path(parent['directory']).name}:{parent.get('step')}"


def _data(meta: Mapping[str, Any]) -> dict[str, tuple[Any, Any, str]]:
    """What the stage learned from: the sources of its mixture, else its files."""
    found: dict[str, tuple[Any, Any, str]] = {
        str(row["source"]): (row.get("rows"), row.get("epochs"), str(row.get("hash", "")))
        for row in meta.get("mixture") or ()
    }
    for name, digest in (meta.get("data") or {}).items():
        found.setdefault(str(name), (None, None, str(digest)))
    return found


def _scores(directory: Path, step: int, meta: Mapping[str, Any]) -> dict[str, float]:
    """Everything measured of these weights."""
    found: dict[str, float] = {}
    loss = meta.get("val_bpb") or (meta.get("metrics") or {}).get("val_bpb")
    if isinstance(loss, (int, float)):
        found["val_bpb"] = loss
    for kind in EVALUATIONS:
        document = _read_json(directory / f"{kind}_{step:06d}.json")
        tasks = (document.get("tasks") or {}).items()
        measured = {name: of.get("score") for name, of in tasks if isinstance(of, dict)}
        found |= {
            name: value
            for name, value in {**(document.get("metrics") or {}), **measured}.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
    return found


# --- notes


def read_notes(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """Step -> what people have written about it."""
    found = _read_json(directory / NOTES)
    return {step: notes for step, notes in found.items() if isinstance(notes, list)}


def add_note(row: CheckpointRow, text: str) -> None:
    """Keep a note beside the checkpoint. ValueError for an empty one."""
    if not text.strip():
        raise ValueError("note: write what is to be remembered, in quotes")
    notes = read_notes(row.folder)
    notes.setdefault(str(row.step), []).append({"written": time.time(), "text": text.strip()})
    atomic_write(row.folder / NOTES, json.dumps(notes, indent=1, ensure_ascii=False) + "\n")


# --- finding one


def find_row(rows: Sequence[CheckpointRow], name: str) -> CheckpointRow:
    """`sft:d34:700`, `sft:d34` (its newest step) or `d34`, where only one stage has it. ValueError
    where it is none of the rows or several.
    """
    parts = name.split(":")
    if len(parts) == 1:
        stages = list(dict.fromkeys(row.stage for row in rows if row.tag == name))
        if len(stages) > 1:
            told = " or ".join(f"{stage}:{name}" for stage in stages)
            raise ValueError(f"{name}: several stages have it; write {told}")
        parts = [*stages[:1], name]
    found = [
        row
        for row in rows
        if parts[:2] == [row.stage, row.tag] and (len(parts) < 3 or parts[2] == str(row.step))
    ]
    if not found or len(parts) > 3:
        known = ", ".join(row.name for row in rows) or "none"
        raise ValueError(f"{name}: no such model; write STAGE:TAG or STAGE:TAG:STEP of: {known}")
    return found[-1]


# --- showing them


def cells(row: CheckpointRow) -> list[str]:
    """A row as text, in the order of HEADER."""
    data = "; ".join(
        name + (f" ({number(n)} rows" + _times(epochs) + ")" if n is not None else "") + _hash(mark)
        for name, (n, epochs, mark) in row.data.items()
    )
    return [
        row.name,
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row.saved)),
        row.parent or "-",
        row.code,
        data or "-",
        "-" if row.hours is None else f"{row.hours:.2f}",
        "-" if row.usd is None else f"{row.usd:.2f}",
        ", ".join(f"{name} {value:.4f}" for name, value in row.scores.items()) or "-",
        "; ".join(row.notes) or "-",
    ]


def _times(epochs: Any) -> str:
    return "" if epochs in (None, 1, 1.0) else f" x {epochs:g}"


def _hash(mark: str) -> str:
    return f" {mark[:SHOWN_HASH]}" if mark else ""


def checkpoint_blocks(rows: Sequence[CheckpointRow], level: int = 2) -> list[Block]:
    """The table as a part of the report; nothing where there is no model."""
    if not rows:
        return []
    table = Table(list(HEADER), [cells(row) for row in rows], numeric=False)
    told = "Hours are those of the model's own stage; a dash: not recorded."
    return [Heading(level, "Models"), Text(told), table]


def difference(first: CheckpointRow, second: CheckpointRow) -> list[list[str]]:
    """What differs between two models, as (what, of the first, of the second)."""
    found = []
    pairs: list[tuple[str, Any, Any]] = [
        ("parent", first.parent, second.parent),
        ("code", first.code, second.code),
        ("tokenizer", first.meta.get("tokenizer"), second.meta.get("tokenizer")),
        ("hours", _rounded(first.hours), _rounded(second.hours)),
    ]
    for title, part in (("model", "model_config"), ("setting", "user_config")):
        ours, theirs = first.meta.get(part) or {}, second.meta.get(part) or {}
        pairs += [(f"{title} {n}", ours.get(n), theirs.get(n)) for n in {**ours, **theirs}]
    for name in {**first.data, **second.data}:
        pairs.append((f"data {name}", _told(first.data.get(name)), _told(second.data.get(name))))
    for name in {**first.scores, **second.scores}:
        pairs.append((f"score {name}", first.scores.get(name), second.scores.get(name)))
    for what, ours, theirs in pairs:
        if ours != theirs:
            found.append([what, _cell(ours), _cell(theirs)])
    return found


def _rounded(hours: float | None) -> str:
    return "" if hours is None else f"{hours:.2f}"


def _told(data: tuple[Any, Any, str] | None) -> str:
    if data is None:
        return ""
    n, epochs, mark = data
    return f"{number(n)} rows{_times(epochs)}{_hash(mark)}" if n is not None else mark[:SHOWN_HASH]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
