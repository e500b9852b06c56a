"""Putting the report together: records -> blocks -> report.md, report.html and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nanochat.report import html, sections
from nanochat.report.document import Block, Heading, Text, markdown
from nanochat.report.stage_records import PICTURES, clear_pictures, read_records, report_dir
from nanochat.runtime.run_dir import atomic_write, base_dir, code_version

TITLE = "nanochat report"
NO_RECORDS = (
    "report: {folder} holds no records yet, so there is nothing to report; run `bash "
    "speedrun.sh` for the whole "
    "pipeline, or any stage (`python -m scripts.base_train --depth=4 ...`), then generate again"
)


def build(
    records: Mapping[str, Mapping[str, Any]], pictures: Path, hourly_rate: float | None = None
) -> list[Block]:
    """The whole report as blocks; pictures are written into the folder `pictures`."""
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    blocks: list[Block] = [Heading(1, TITLE), Text(f"Made {made} by nanochat {code_version()}.")]
    parts = [
        sections.summary(records, pictures),
        sections.exam(records, pictures),
        sections.cost(records, hourly_rate),
        sections.environment(records),
    ]
    parts += [
        sections.section(name, record, pictures)
        for name, record in records.items()
        if name != "exam"
    ]
    for part in parts:
        blocks += part
    return blocks


def generate(
    hourly_rate: float | None = None, copy_to: Path | None = None, base: Path | None = None
) -> Path:
    """Write `report.md`, `report.html` and their pictures to `<base>/report`, and copies to
    `copy_to`.

    Returns the path of report.md. Raises ValueError where there are no records, or one that cannot
    be read.
    """
    folder = report_dir(base)
    records = read_records(base)
    if not records:
        raise ValueError(NO_RECORDS.format(folder=folder))
    clear_pictures(base)
    blocks = build(_with_metrics_paths(records, base), folder / PICTURES, hourly_rate)
    atomic_write(folder / "report.md", markdown(blocks, PICTURES))
    atomic_write(folder / "report.html", html.page(TITLE, blocks))
    if copy_to is not None and copy_to.resolve() != folder.resolve():
        _copy(folder, copy_to)
    return folder / "report.md"


def _copy(folder: Path, to: Path) -> None:
    """The same three things beside the reader's work, older pictures of ours gone."""
    for old in (to / PICTURES).glob("plot_*.png"):
        old.unlink()
    for name in ("report.md", "report.html"):
        atomic_write(to / name, (folder / name).read_bytes())
    new = sorted((folder / PICTURES).glob("plot_*.png"))
    if new:
        (to / PICTURES).mkdir(parents=True, exist_ok=True)
    for path in new:
        shutil.copyfile(path, to / PICTURES / path.name)


def _with_metrics_paths(
    records: dict[str, dict[str, Any]], base: Path | None
) -> dict[str, dict[str, Any]]:
    """Records whose `metrics_jsonl` is found even when the base directory was moved or copied to
    another machine.
    """
    root = base if base is not None else base_dir()
    for record in records.values():
        path = record.get("metrics_jsonl")
        if isinstance(path, str) and not Path(path).is_file():
            candidates = [root / path, root.joinpath(*Path(path).parts[-3:])]
            record["metrics_jsonl"] = next((str(c) for c in candidates if c.is_file()), None)
    return records
