"""Documents out of people's files: .txt and .md (split at blank lines when long), .jsonl with
`text`, .parquet.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nanochat.dataloader.documents import ShardDocuments

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
PIECE_CHARACTERS = 10_000  # of a long .txt or .md file: about 2,500 tokens, more than the usual row
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_CUT_MARKS = ("\n", ". ", "! ", "? ", " ")


def find_files(source: Path, exclude: Path | None = None) -> list[Path]:
    """Files to import, in a fixed order: the file itself, or every supported file below a folder
    (hidden ones not).

    Raises ValueError when there is nothing to import.
    """
    kinds = ", ".join(SUFFIXES)
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--data={source}: not a {kinds} file; rename or convert it")
        return [source]
    if not source.is_dir():
        raise ValueError(
            f"--data={source}: no such file or folder; give a folder or a {kinds} file"
        )
    found = []
    for folder, names, files in os.walk(source):
        here = Path(folder)
        names[:] = [n for n in names if not n.startswith(".") and here / n != exclude]
        found += [
            here / f for f in files if not f.startswith(".") and Path(f).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise ValueError(
            f"--data={source}: no {kinds} files in it; put your text there or name another folder"
        )
    return sorted(found, key=lambda path: path.relative_to(source).as_posix())


def read_file(path: Path) -> Iterator[str]:
    """The documents of one file, line ends as \\n, without blank ends. Raises ValueError naming
    file and line.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        texts: Iterable[str] = _read_jsonl(path)
    elif suffix == ".parquet":
        documents = ShardDocuments([path])
        texts = (documents.raw(i) for i in range(len(documents)))
    else:
        texts = split_text(_read_plain(path), PIECE_CHARACTERS)
    for text in texts:
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
        if text:
            yield text


def split_text(text: str, limit: int) -> list[str]:
    """Cut a text at blank lines into pieces of at most `limit` characters; whole when it is short
    enough.

    A paragraph longer than that is cut at a line end, a sentence end or a space, if need be
    anywhere.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if len(text) <= limit:
        return [text] if text else []
    pieces: list[str] = []
    current = ""
    for paragraph in _BLANK_LINE.split(text):
        if current and len(current) + 2 + len(paragraph) > limit:
            pieces.append(current)
            current = ""
        current = f"{current}\n\n{paragraph}" if current else paragraph
        while len(current) > limit:
            cut = _cut_position(current, limit)
            pieces.append(current[:cut].rstrip())
            current = current[cut:].lstrip()
    return [piece for piece in [*pieces, current] if piece]


def _cut_position(text: str, limit: int) -> int:
    for mark in _CUT_MARKS:
        at = text.rfind(mark, limit // 2, limit)
        if at >= 0:
            return at + len(mark)
    return limit


def _read_plain(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise ValueError(
            f"{path}: holds zero bytes, so it is not a text file; remove it or convert it to "
            "UTF-8 text"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # what older Western text files are in


def _read_jsonl(path: Path) -> Iterator[str]:
    first_problem, problems = "", 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            text, problem = _text_of_line(line)
            if problem:
                first_problem = first_problem or f"{path}:{number}: {problem}"
                problems += 1
            elif not problems:
                yield text
    if problems:
        more = f" (and {problems - 1} more bad lines)" if problems > 1 else ""
        raise ValueError(f"{first_problem}{more}")


def _text_of_line(line: bytes) -> tuple[str, str]:
    """(text, "") or ("", what is wrong)."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return "", f'not valid JSON ({error}); write one object with a string field "text" per line'
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        return row["text"].encode("utf-8", "replace").decode(
            "utf-8"
        ), ""  # JSON can spell lone surrogates
    if isinstance(row, list) or (isinstance(row, dict) and "messages" in row):
        return (
            "",
            "a conversation, not text to pretrain on; give this file to mid_train or chat_sft "
            "with --data",
        )
    return "", 'no string field "text"; write one object with a string field "text" per line'
