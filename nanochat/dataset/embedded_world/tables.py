"""Reading the world's data files, which lie beside this module."""

from __future__ import annotations

import functools
import random
from pathlib import Path


def _lines(name: str) -> list[str]:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line.strip() and not line.startswith("#")]


@functools.cache
def read_table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a tab-separated file as dicts by column name; a lone `-` means unknown and is left
    out of the dict.
    """
    header, *rows = [line.split("\t") for line in _lines(name)]
    return tuple(
        {column: cell for column, cell in zip(header, row, strict=True) if cell != "-"}
        for row in rows
    )


@functools.cache
def read_sections(name: str) -> dict[str, tuple[str, ...]]:
    """A file of `[section]` headings and lines as a dict. ValueError for a line before the first
    heading.
    """
    sections: dict[str, list[str]] = {}
    current = ""
    for line in _lines(name):
        if line.startswith("[") and line.endswith("]"):
            current = line[1:-1]
            sections.setdefault(current, [])
        elif not current:
            raise ValueError(
                f"{name}: {line!r} stands before the first [section]; move it below one"
            )
        else:
            sections[current].append(line.strip())
    return {section: tuple(lines) for section, lines in sections.items()}


@functools.cache
def read_words(name: str, section: str) -> tuple[str, ...]:
    """All words of one section, several to a line, in order and without repeats."""
    return tuple(dict.fromkeys(" ".join(read_sections(name)[section]).split()))


@functools.cache
def wordings(section: str) -> tuple[str, ...]:
    """The wordings of one kind of document, from documents.txt."""
    lines = read_sections("documents.txt")[section]
    return tuple(line.replace("\\n", "\n") for line in lines)


def say(rng: random.Random, section: str, **slots: object) -> str:
    """One of the wordings with its slots filled."""
    return rng.choice(wordings(section)).format_map(slots)


def people(kind: str = "") -> tuple[str, ...]:
    """First names: "she", "he", or both."""
    kinds = (kind,) if kind else ("she", "he")
    return tuple(name for k in kinds for name in read_words("stories.txt", f"names.{k}"))
