"""The help page of a command, from the docstrings of its config class and fields."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from nanochat.config.fields import REQUIRED, Field
from nanochat.config.kinds import Kind

HELP_COLUMN = 30
VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def help_page(cls: type, fields: Sequence[Field], prog: str) -> str:
    """The text of `prog --help`, as wide as the terminal, at most 100 columns."""
    width = min(shutil.get_terminal_size().columns, 100)
    places = "".join(
        f" {f.name}" if f.default is REQUIRED else f" [{f.name}]" for f in by_place(fields)
    )
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
    about = "\n\n".join(textwrap.fill(" ".join(p.split()), width) for p in paragraphs)
    rows = [(name_and_value(field), told(field)) for field in fields]
    rows.append(("--config FILE.yaml", "Settings from a file; the command line wins."))
    rows.append(("-h, --help", "Show this page."))
    lines = "\n".join(row(name, text, width) for name, text in rows)
    return f"usage: {prog}{places} [--flag value ...]\n\n{about}\n\n{lines}\n"


def by_place(fields: Sequence[Field]) -> list[Field]:
    return [field for field in fields if field.positional]


def name_and_value(field: Field) -> str:
    """`-k, --top-k N`"""
    if field.positional:
        return field.name
    names = ", ".join((*field.shorts, field.flag))
    if field.kind.scalar is bool:
        return f"{names}, --no-{field.flag[2:]}" if field.default is not False else names
    return f"{names} {value_name(field.kind)}"


def value_name(kind: Kind) -> str:
    name = "{" + ",".join(kind.choices) + "}" if kind.choices else VALUES[kind.scalar]
    return f"{name} ..." if kind.container else name


def told(field: Field) -> str:
    """The field's help and its default, where that says something."""
    text = field.help
    if field.positional and field.kind.choices:
        text = f"{{{','.join(field.kind.choices)}}} {text}"
    if field.default is False or field.default in (REQUIRED, None, "", (), []):
        return text
    default = field.default
    shown = " ".join(map(str, default)) if field.kind.container else str(default)
    return f"{text} (default: {shown})".lstrip()


def row(name: str, text: str, width: int) -> str:
    """Two columns; a long name has a line of its own."""
    indent = " " * HELP_COLUMN
    lines = textwrap.wrap(text, max(width - HELP_COLUMN, 20)) or [""]
    first = f"  {name}"
    if len(first) + 2 > HELP_COLUMN:
        return "\n".join([first, *(indent + line for line in lines)]).rstrip()
    return "\n".join([first.ljust(HELP_COLUMN) + lines[0], *(indent + line for line in lines[1:])])
