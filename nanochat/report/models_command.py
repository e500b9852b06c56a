"""`nanochat models`: the checkpoints there are, notes about them, what two of them differ in."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from nanochat.config import Positional
from nanochat.report.blocks import Heading
from nanochat.report.checkpoint_table import (
    HEADER,
    add_note,
    cells,
    checkpoint_blocks,
    checkpoint_rows,
    difference,
    find_row,
)
from nanochat.report.markdown import markdown
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import atomic_write
from nanochat.runtime.printable import printable


@dataclass
class ModelsConfig:
    """List the models of the base directory, note something about one, or compare how two were
    made: `nanochat models`, `nanochat models note sft:d34 "text"`, `nanochat models diff A B`.
    """

    action: Positional[Literal["list", "note", "diff"]] = "list"
    """What to do."""
    first: Positional[str] = ""
    """note, diff: the model, as STAGE:TAG, STAGE:TAG:STEP, or TAG where one stage has it."""
    second: Positional[str] = ""
    """note: the text; diff: the other model."""
    markdown: str | None = None
    """list: write the table to this file, such as MODELS.md."""
    hourly_rate: float | None = None
    """US dollars for an hour of the machine; without it, what the runs' records know of it."""

    def problems(self) -> list[str]:
        found = []
        if self.action == "list" and self.first:
            found.append(f"models list {self.first}: takes no name; leave it out")
        if self.action == "note" and not (self.first and self.second):
            found.append('models note: write the model and a text: models note sft:d34 "text"')
        if self.action == "diff" and not (self.first and self.second):
            found.append("models diff: write two models: models diff sft:d34:700 sft:d34:900")
        if self.hourly_rate is not None and not 0 <= self.hourly_rate < float("inf"):
            found.append(f"--hourly-rate={self.hourly_rate}: give US dollars, 0 or more")
        return found


def models(cfg: ModelsConfig) -> str:
    """Run the action; returns what to print. ValueError for a model that there is not."""
    rows = checkpoint_rows(cfg.hourly_rate)
    if cfg.action == "note":
        row = find_row(rows, cfg.first)
        add_note(row, cfg.second)
        return f"noted about {row.name}: {cfg.second.strip()}"
    if cfg.action == "diff":
        first, second = find_row(rows, cfg.first), find_row(rows, cfg.second)
        found = difference(first, second)
        told = _table(["", first.name, second.name], found)
        hint = f"nanochat compare {first.name} {second.name}"
        return f"{told}\n\nwhether scores differ by more than noise: {hint}"
    if not rows:
        return f"no models in {base_dir()}; `nanochat recipe run` trains one"
    if cfg.markdown is not None:
        path = expanded(cfg.markdown)
        atomic_write(Path(path), markdown([Heading(1, "nanochat"), *checkpoint_blocks(rows)], ""))
        return f"wrote {len(rows)} models to {path}"
    return _table(list(HEADER), [cells(row) for row in rows])


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Cells in columns, wrapped to the width of the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(file=StringIO(), width=max(80, shutil.get_terminal_size((160, 24)).columns))
    console.print(table)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")
