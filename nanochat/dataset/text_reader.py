"""Documents out of people's files: .txt and .md (cut at blank lines when long), .jsonl with `text`,
.parquet with a column `text`. The one reader for shards of your own text and for the tokenizer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from nanochat.dataloader.parquet_text import read_groups
from nanochat.dataset.file_kinds import what_it_is
from nanochat.dataset.strict_json import parse_json
from nanochat.dataset.text_encoding import text_encoding
from nanochat.dataset.text_files import TextFiles

PIECE_CHARACTERS = 10_000  # of a long .txt or .md file: about 2,500 tokens, more than the usual row
SHOWN_FILES = 20
_INK = re.compile(r"\S")
_CUT_MARKS = ("\n", ". ", "! ", "? ", " ")
_EXPECTED = 'write one object with a string field "text" per line'


class TextReader:
    """The documents of text files, file after file, line ends as \\n, without blank ends.

    encoding: that of files which are not UTF-8; without it they are judged one by one. read_as:
    file -> how it was read, filled while iterating. Iterating raises one ValueError at the end,
    with a line for every file that cannot be read.
    """

    def __init__(self, found: TextFiles, encoding: str | None = None):
        self.found = found
        self.encoding = encoding
        self.read_as: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return self.documents()

    def documents(self, on_file: Callable[[], None] = lambda: None) -> Iterator[str]:
        """The documents; on_file is called after every file."""
        problems = []
        for path in self.found.files:
            try:
                yield from self._documents(path)
            except ValueError as error:
                problems.append(str(error))
            on_file()
        if problems:
            more = len(problems) - SHOWN_FILES
            told = problems[:SHOWN_FILES] + ([f"... and {more:,} more files"] if more > 0 else [])
            raise ValueError("\n".join(told))

    def notes(self) -> list[str]:
        """What has to be said once the texts have been read."""
        return notes_of(self.read_as, self.found)

    def _documents(self, path: Path) -> Iterator[str]:
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            groups = read_groups(path)
            yield from filter(
                None, (_tidy(text.as_py() or "") for group in groups for text in group)
            )
            return
        if kind := what_it_is(path):
            raise ValueError(f"{path}: not text but {kind}")
        how = text_encoding(path, self.encoding)
        if how.note:
            root = self.found.source if self.found.source.is_dir() else path.parent
            self.read_as[path.relative_to(root).as_posix()] = how.note
        newline = "\n" if suffix == ".jsonl" else None
        with open(path, encoding=how.codec, errors=how.errors, newline=newline) as file:
            yield from _json_texts(path, file) if suffix == ".jsonl" else _pieces_of(file)


def notes_of(read_as: dict[str, str], found: TextFiles) -> list[str]:
    """Lines for people: which files were read in which encoding, and what was not read."""
    files: dict[str, list[str]] = {}
    for name, how in read_as.items():
        files.setdefault(how, []).append(name)
    told = []
    for how, names in sorted(files.items()):
        more = len(names) - SHOWN_FILES
        some = ", ".join(names[:SHOWN_FILES]) + (f" and {more:,} more" if more > 0 else "")
        told.append(f"read as {how}: {some}")
    return told + found.notes()


def split_text(text: str, limit: int) -> list[str]:
    """Cut a text at blank lines into pieces of at most `limit` characters; whole when it is short
    enough.

    A paragraph longer than that is cut at a line end, a sentence end or a space, if need be
    anywhere.
    """
    text = _tidy(text)
    if len(text) <= limit:
        return [text] if text else []
    return list(_pieces(_paragraphs(StringIO(text)), limit))


def _tidy(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _pieces_of(file: Any) -> Iterator[str]:
    """`split_text` of an open file, of which no more than a paragraph is in memory."""
    start = file.read(2 * PIECE_CHARACTERS) + file.readline()
    if len(start) < 2 * PIECE_CHARACTERS:
        yield from split_text(start, PIECE_CHARACTERS)
    else:
        lines = itertools.chain(StringIO(start), file)
        yield from _pieces(_paragraphs(lines), PIECE_CHARACTERS)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """What stands between blank lines, without blanks before it."""
    for is_text, group in itertools.groupby(lines, key=lambda line: bool(line.strip())):
        if is_text:
            yield "".join(group).removesuffix("\n").lstrip()


def _pieces(paragraphs: Iterable[str], limit: int) -> Iterator[str]:
    current = ""
    for paragraph in paragraphs:
        if current and len(current) + 2 + len(paragraph) > limit:
            yield current
            current = ""
        current = f"{current}\n\n{paragraph}" if current else paragraph
        start = 0  # not a shorter string each time: a book on one line would take for ever
        while len(current) - start > limit:
            cut = _cut_position(current, start, limit)
            yield current[start:cut].rstrip()
            found = _INK.search(current, cut)
            start = found.start() if found else len(current)
        current = current[start:]
    if current := current.rstrip():
        yield current


def _cut_position(text: str, start: int, limit: int) -> int:
    for mark in _CUT_MARKS:
        at = text.rfind(mark, start + limit // 2, start + limit)
        if at >= 0:
            return at + len(mark)
    return start + limit


def _json_texts(path: Path, lines: Iterable[str]) -> Iterator[str]:
    """The texts of JSONL lines. One ValueError at the end with the first bad line and how many
    there are.
    """
    first_problem, problems = "", 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = _tidy(_text_of(line))
        except ValueError as error:
            first_problem = first_problem or f"{path}:{number}: {error}"
            problems += 1
            continue
        if text:
            yield text
    if problems:
        more = f" (and {problems - 1} more bad lines)" if problems > 1 else ""
        raise ValueError(f"{first_problem}{more}")


def _text_of(line: str) -> str:
    row = parse_json(line)
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        # JSON can spell lone surrogates
        return row["text"].encode("utf-8", "replace").decode("utf-8")
    if isinstance(row, list) or (isinstance(row, dict) and "messages" in row):
        raise ValueError(
            "a conversation, not text to pretrain on; give this file to mid_train or chat_sft "
            "with --data"
        )
    raise ValueError(f'no string field "text"; {_EXPECTED}')
