"""Putting the report together: records -> blocks -> report.md, report.html and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nanochat.report import html, machine_hours, score_tables
from nanochat.report.blocks import Block, Heading, Text
from nanochat.report.checkpoint_table import checkpoint_blocks, checkpoint_rows
from nanochat.report.markdown import markdown
from nanochat.report.stage_records import PICTURES, clear_pictures, read_records, report_dir
from nanochat.report.stage_section import section
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import code_version

TITLE = "nanochat report"
NO_RECORDS = (
    "report: {folder} holds no records yet, so there is nothing to report; run `bash speedrun.sh` "
    "for the whole pipeline, or any stage (`python -m scripts.base_train --depth=4 ...`), then "
    "generate again"
)


def build(
    records: Mapping[str, Mapping[str, Any]], pictures: Path, hourly_rate: float | None = None
) -> list[Block]:
    """The whole report as blocks; pictures are written into the folder `pictures`."""
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    blocks: list[Block] = [Heading(1, TITLE), Text(f"Made {made} by nanochat {code_version()}.")]
    blocks += score_tables.summary(records, pictures)
    if "exam" in records:
        blocks += section("exam", records["exam"], pictures)
    blocks += checkpoint_blocks(checkpoint_rows(hourly_rate))
    blocks += machine_hours.cost(records, hourly_rate)
    blocks += machine_hours.environment(records)
    for name, record in records.items():
        blocks += section(name, record, pictures) if name != "exam" else []
    return blocks


def generate(hourly_rate: float | None = None, copy_to: Path | None = None) -> Path:
    """Write `report.md`, `report.html` and their pictures to `<base>/report`, and copies to
    `copy_to`.

    Returns the path of report.md. Raises ValueError where there are no records, or one that cannot
    be read.
    """
    folder = report_dir()
    records = read_records()
    if not records:
        raise ValueError(NO_RECORDS.format(folder=folder))
    clear_pictures()
    blocks = build(records, folder / PICTURES, hourly_rate)
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
    for path in (folder / PICTURES).glob("plot_*.png"):
        atomic_write(to / PICTURES / path.name, path.read_bytes())
