"""Reading files of conversations: what is right is returned, what is wrong is reported as
`file:line: reason`, and what is not used is counted.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.dataset.convert import Conversation, looks_like_messages, to_conversation
from nanochat.dataset.file_kinds import special_kind, what_it_is
from nanochat.dataset.strict_json import parse_json
from nanochat.dataset.text_encoding import WIDE_MARKS, text_encoding
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.files import atomic_write

NOTHING_TRAINED = "rows of which no answer is to be trained on"


@dataclass(kw_only=True)
class FileContents:
    """What a file holds. forms: the shapes found (list, messages, sharegpt, alpaca). unused: what
    is not used -> the lines where it is. sql: what each conversation says about its query, if it
    does.
    """

    path: Path
    conversations: list[Conversation] = field(default_factory=list)
    sql: list[dict[str, Any] | None] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    forms: Counter[str] = field(default_factory=Counter)
    unused: dict[str, list[int]] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """One line for each thing in the file that is not used."""
        return [
            f"{self.path}:{lines[0]}: not used: {what} ({len(lines):,} in the file)"
            for what, lines in sorted(self.unused.items())
        ]


def read_conversations(path: Path | str) -> tuple[list[Conversation], list[str]]:
    """(conversations, problems) of a file; see `scan_conversations`."""
    contents = scan_conversations(path)
    return contents.conversations, contents.problems


def scan_conversations(path: Path | str) -> FileContents:
    """What a JSONL file holds, or a JSON file: one record, a list of records, or records one after
    the other, indented or not.

    Each line is judged by itself, so forms may be mixed. Blank lines are skipped. Problems are
    `file:line: reason`. ValueError when the file cannot be read at all.
    """
    path = expanded(path)
    found = FileContents(path=path)
    try:
        data, problem = _read(path)
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give an existing JSONL file"
        ) from None
    if problem:
        found.problems.append(f"{path}:1: {problem}")
        return found
    for line, record in _records(data):
        try:
            if isinstance(record, ValueError):
                raise record
            made = to_conversation(record)
        except ValueError as error:
            found.problems.append(f"{path}:{line}: {error}")
            continue
        for what in made.unused + ([] if made.is_trained else [NOTHING_TRAINED]):
            found.unused.setdefault(what, []).append(line)
        if made.is_trained:
            found.conversations.append(made.conversation)
            found.sql.append(made.sql)
            found.forms[made.form] += 1
    if not found.conversations and not found.problems:
        reason = NOTHING_TRAINED if found.unused else "the file is empty"
        found.problems.append(f"{path}:1: {reason}")
    return found


def write_conversations(path: Path | str, conversations: Iterable[Conversation]) -> None:
    """Write the `{"messages": ...}` form, one conversation a line, all or nothing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(Path(path), "".join(to_line(conversation) for conversation in conversations))


def to_line(conversation: Conversation) -> str:
    """One conversation as its line of a file."""
    return json.dumps({"messages": conversation["messages"]}, ensure_ascii=False) + "\n"


def parse_mix(spec: str) -> tuple[Path, float]:
    """`my.jsonl` -> (path, 1.0), `my.jsonl:3` -> (path, 3.0): how often a file is gone through.

    A colon belongs to the path unless a number follows it, and also when a file of the whole name
    exists.
    """
    head, colon, tail = spec.rpartition(":")
    if (
        not colon
        or not head
        or expanded(spec).exists()
        or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", tail)
    ):
        return expanded(spec), 1.0
    epochs = float(tail)
    if not (epochs > 0 and math.isfinite(epochs)):
        raise ValueError(
            f"--data={spec}: {tail} epochs; write a number above 0 after the colon, such as "
            f"{head}:2"
        )
    return expanded(head), epochs


def _read(path: Path) -> tuple[bytes, str]:
    """(the file as UTF-8, "") or (nothing, why it is no text file). ValueError for a pipe."""
    if special := special_kind(path):
        raise ValueError(f"{path}: {special}, not a file; write what comes out of it into one")
    if kind := what_it_is(path):
        return b"", f"not JSONL but {kind}"
    data = path.read_bytes()
    if data.startswith(WIDE_MARKS) or b"\0" in data[:4096]:  # UTF-16 or UTF-32, or no text
        try:
            return data.decode(text_encoding(path).codec).encode(), ""
        except ValueError as error:
            return b"", str(error).removeprefix(f"{path}: ")
    return data.removeprefix(codecs.BOM_UTF8), ""


def _records(data: bytes) -> Iterator[tuple[int, Any]]:
    """(line, parsed record or ValueError) for everything in the file."""
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not lines:
        return
    first = _parsed(lines[0][1])
    if len(lines) == 1 and isinstance(first, list) and not looks_like_messages(first) and first:
        yield from ((lines[0][0], record) for record in first)
    elif isinstance(first, ValueError) and lines[0][1].lstrip()[:1] in (b"[", b"{"):
        yield from _document(data, lines)
    else:
        yield from ((number, _parsed(line)) for number, line in lines)


def _parsed(line: bytes | str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        return error


def _document(data: bytes, lines: list[tuple[int, bytes]]) -> list[tuple[int, Any]]:
    """The records of a file whose first line is no record: JSON values over several lines, or bad
    lines of JSONL.
    """
    try:
        text = data.decode("utf-8")
        values = _values(text, 0, len(text))
        if len(values) == 1 and text[values[0][0]] == "[" and not _is_one_conversation(text):
            values = _values(text, values[0][0] + 1, text.rindex("]"))
    except (ValueError, RecursionError) as error:
        by_line = [(number, _parsed(line)) for number, line in lines]
        whole = sum(isinstance(record, (dict, list)) and bool(record) for _, record in by_line)
        if not isinstance(error, json.JSONDecodeError) or 4 * whole > len(by_line):
            return by_line  # JSONL, for all that its first line is bad
        problem = ValueError(
            f"not JSON ({error.msg} at column {error.colno}), neither this line nor the file as a "
            "whole; write one record a line"
        )
        return [(error.lineno, problem)]
    found, line, counted = [], 1, 0
    for start, stop in values:
        line, counted = line + text.count("\n", counted, start), start
        found.append((line, _parsed(text[start:stop])))
    return found


def _is_one_conversation(text: str) -> bool:
    whole = json.loads(text)
    return looks_like_messages(whole) or not whole


def _values(text: str, place: int, end: int) -> list[tuple[int, int]]:
    """(start, end) of the JSON values between two places; commas between them are passed over."""
    decoder = json.JSONDecoder()
    found: list[tuple[int, int]] = []
    while True:
        while place < end and text[place] in " \t\r\n,":
            place += 1
        if place >= end:
            return found
        _, stop = decoder.raw_decode(text, place)
        found.append((place, stop))
        place = stop
