"""A report as a list of blocks; `markdown` and `html` write the same blocks.

Everything that reaches a block may be model output: nothing is trusted to be harmless in Markdown
or HTML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Union


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column is text, the others are numbers unless `numeric` is False."""

    header: list[str]
    rows: list[list[str]]
    numeric: bool = True


@dataclass(frozen=True)
class Image:
    """A picture file; `alt` says what it shows to those who cannot see it."""

    path: Path
    alt: str


@dataclass(frozen=True)
class SampleBlock:
    """What was asked and what the model wrote; `note` holds a verdict or a reward."""

    prompt: str
    completion: str
    note: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks that a reader opens when wanted."""

    summary: str
    blocks: list[Block] = field(default_factory=list)


Block = Union[Heading, Text, Table, Image, SampleBlock, Details]  # noqa: UP007  (a forward reference at run time)


def aligned(table: Table) -> str:
    """A table for a terminal: columns as wide as their widest cell, numbers to the right."""
    rows = [table.header, *table.rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.header))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        for cell, width in zip(row[1:], widths[1:], strict=True):
            cells.append(cell.rjust(width) if table.numeric else cell.ljust(width))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
