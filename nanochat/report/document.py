"""A report as a list of blocks, and its Markdown. `html.py` writes the same blocks as a page.

Everything that reaches a block may be model output: nothing is trusted to be harmless in Markdown
or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union


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


def size(count: float | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return "-"
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def markdown(blocks: Sequence[Block], pictures: str) -> str:
    """The blocks as GitHub Markdown; `pictures` is the folder of the images as seen from the
    file."""
    return "\n\n".join(_markdown(block, pictures) for block in blocks) + "\n"


def _markdown(block: Block, pictures: str) -> str:
    if isinstance(block, Heading):
        return "#" * block.level + " " + escape(block.text)
    if isinstance(block, Text):
        return escape(block.text)
    if isinstance(block, Image):
        return f"![{escape(block.alt)}]({pictures}/{block.path.name})"
    if isinstance(block, SampleBlock):
        note = f"*{escape(block.note)}*\n\n" if block.note else ""
        return f"{note}Prompt:\n\n{fence(block.prompt)}\n\nAnswer:\n\n{fence(block.completion)}"
    if isinstance(block, Details):
        inner = "\n\n".join(_markdown(b, pictures) for b in block.blocks)
        return f"<details><summary>{escape(block.summary)}</summary>\n\n{inner}\n\n</details>"
    align = "---:" if block.numeric else "---"
    lines = [block.header, ["---"] + [align] * (len(block.header) - 1)]
    cells = [
        [cell if i == 1 else escape(cell) for cell in line]
        for i, line in enumerate([*lines, *block.rows])
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no tags, links, pictures, emphasis or table borders of its
    own.
    """
    text = (
        re.sub(r"[\r\n]+", " ", str(text))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace("\\", "\\\\")
    )
    return re.sub(r"([`|*\[\]])|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(0), text)


def fence(text: str) -> str:
    """A code block that its content cannot end: the fence is longer than any run of backticks
    inside.
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{text}\n{marks}"
