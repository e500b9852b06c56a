"""Reading files of conversations: what is right is returned, what is wrong is reported as
`file:line: reason`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.dataset.convert import Conversation, looks_like_messages, to_conversation
from nanochat.runtime.run_dir import atomic_write


@dataclass
class FileContents:
    """What a file holds. `forms` counts the shapes found (list, messages, sharegpt, alpaca)."""

    path: Path
    conversations: list[Conversation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    forms: Counter[str] = field(default_factory=Counter)


def read_conversations(path: Path | str) -> tuple[list[Conversation], list[str]]:
    """(conversations, problems) of a JSONL file, or of a JSON file that is one list of records.

    Each line is judged by itself, so forms may be mixed. Blank lines are skipped. Problems are
    `file:line: reason`. ValueError when the file cannot be read at all.
    """
    contents = scan_conversations(path)
    return contents.conversations, contents.problems


def scan_conversations(path: Path | str) -> FileContents:
    """Like `read_conversations`, with the counts that `nanochat data check` shows."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); give an existing JSONL file"
        ) from None
    found = FileContents(path)
    for line, record in _records(data.removeprefix(b"\xef\xbb\xbf")):
        try:
            if isinstance(record, ValueError):
                raise record
            conversation, form = to_conversation(record)
        except ValueError as error:
            found.problems.append(f"{path}:{line}: {error}")
            continue
        found.conversations.append(conversation)
        found.forms[form] += 1
    if not found.conversations and not found.problems:
        found.problems.append(f"{path}:1: the file is empty")
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
        or Path(spec).exists()
        or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", tail)
    ):
        return Path(spec), 1.0
    epochs = float(tail)
    if not (0 < epochs and math.isfinite(epochs)):
        raise ValueError(
            f"--data={spec}: {tail} epochs; write a number above 0 after the colon, such as "
            f"{head}:2"
        )
    return Path(head), epochs


def _records(data: bytes) -> Iterator[tuple[int, Any]]:
    """(line, parsed record or ValueError) for everything in the file."""
    lines = data.split(b"\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return
    if (
        lines[first].lstrip()[:1] == b"["
    ):  # JSONL of lists, or one list of records over the whole file?
        items = _whole_list(data)
        if items is not None:
            yield from items
            return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _parse(line)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return ValueError(f"not UTF-8 (byte {error.start + 1} of the line); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return ValueError(f"not JSON ({error.msg} at character {error.pos + 1})")
    except (
        RecursionError,
        ValueError,
    ) as error:  # nested too deeply; a number with thousands of digits
        return ValueError(f"not usable JSON ({type(error).__name__})")


def _whole_list(data: bytes) -> list[tuple[int, Any]] | None:
    """(line, record) of a file that is one JSON list of records; None when it is something else."""
    try:
        text = data.decode("utf-8")
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(whole, list) or looks_like_messages(whole):
        return None
    decoder, place, result = json.JSONDecoder(), text.index("[") + 1, []
    line, counted = 1, 0
    for _ in whole:  # walk over it once more, only to know the line on which each record starts
        while text[place] in " \t\r\n,":
            place += 1
        line, counted = line + text.count("\n", counted, place), place
        record, place = decoder.raw_decode(text, place)
        result.append((line, record))
    return result
