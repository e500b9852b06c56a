"""What a model is told besides the question: the definitions, pages and past queries of a folder
that fit the question best, found by BM25 (SQLite's FTS5). The same in training rows, in evaluation
and in chat.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import expanded
from nanochat.sql.dialect_parser import split_statements

READ = (".sql", ".sqlx", ".md", ".markdown", ".txt", ".jsonl")
MOST_ENTRY_CHARS = 1200  # of one entry; more than a few would not fit beside each other
MOST_ENTRIES = 4
KNOWLEDGE_CHARS = 1500  # of all that is put before a question
# Words that say nothing about what a question is about.
COMMON = frozenset(
    "a all an and any are as at by did do does each every find for from get give has have how in "
    "is it its list many me much my of on or our per show that the their there these this to was "
    "we were what when where which who whose will with you your select".split()
)
_CREATE_TABLE = re.compile(r"\bcreate\b[^;(]*\btable\b", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}\s", re.MULTILINE)
_AFTER = re.compile(r";([ \t]*--[^\n]*)")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class KnowledgeEntry:
    """A piece of a folder. kind: table, page or query. source: the file."""

    kind: str
    text: str
    source: str


class KnowledgeIndex:
    """The pieces of a folder, by what they say. ValueError for a folder without any."""

    def __init__(self, folder: str | Path) -> None:
        path = expanded(folder)
        if not path.is_dir():
            raise ValueError(f"--knowledge={folder}: is not a folder")
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in READ and f.is_file())
        self.entries = [entry for file in files for entry in _entries(file, path)]
        if not self.entries:
            raise ValueError(
                f"--knowledge={folder}: holds nothing to read; put definitions and queries "
                f"(.sql), pages (.md) or rows of `nanochat sql build` (.jsonl) there"
            )
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.execute("CREATE VIRTUAL TABLE entry USING fts5(text, tokenize='porter')")
        self._database.executemany(
            "INSERT INTO entry(rowid, text) VALUES (?, ?)",
            [(number, _spaced(entry.text)) for number, entry in enumerate(self.entries)],
        )

    def ranked(self, question: str, leave_out: str = "") -> list[KnowledgeEntry]:
        """Entries by how well they fit, the best first. `leave_out`: a query that is the answer
        itself, and is not told.
        """
        words = [w for w in _WORD.findall(_spaced(question).casefold()) if w not in COMMON]
        if not words:
            return []
        asked = " OR ".join(f'"{word}"' for word in dict.fromkeys(words))
        with self._lock:
            found = self._database.execute(
                "SELECT rowid FROM entry WHERE entry MATCH ? ORDER BY rank LIMIT 40", (asked,)
            ).fetchall()
        entries = [self.entries[number] for (number,) in found]
        answer = _squeezed(leave_out)
        return [e for e in entries if not answer or answer not in _squeezed(e.text)]

    def chosen(
        self, question: str, fits: Callable[[Sequence[str]], bool], leave_out: str = ""
    ) -> list[str]:
        """The texts of the few best entries that fit together."""
        texts: list[str] = []
        for entry in self.ranked(question, leave_out):
            if entry.text not in texts and fits([*texts, entry.text]):
                texts.append(entry.text)
            if len(texts) == MOST_ENTRIES:
                break
        return texts


def few_texts(texts: Sequence[str]) -> bool:
    """Whether they fit before a question, where no context says how much does."""
    return sum(map(len, texts)) <= KNOWLEDGE_CHARS


def _spaced(text: str) -> str:
    """Text in which the words of names stand apart: order_items and orderItems as order items."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)


def _squeezed(text: str) -> str:
    return re.sub(r"[\s;]+", "", text).casefold()


def _entries(file: Path, folder: Path) -> Iterator[KnowledgeEntry]:
    """The pieces of a file."""
    name = str(file.relative_to(folder))
    text = file.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
    if file.suffix.lower() == ".jsonl":
        yield from _past_queries(text, name)
    elif file.suffix.lower() in (".sql", ".sqlx"):
        # A comment behind a semicolon is about the statement before it (`sql/table_schema.py`).
        for _, statement in split_statements(_AFTER.sub(r"\1\n;", text)):
            kind = "table" if _CREATE_TABLE.search(statement) else "query"
            yield _entry(kind, statement, name)
    else:
        starts = [match.start() for match in _HEADING.finditer(text)]
        for start, end in zip([0, *starts], [*starts, len(text)], strict=True):
            section = text[start:end].strip()
            if section:
                yield _entry("page", section, name)


def _past_queries(text: str, name: str) -> Iterator[KnowledgeEntry]:
    """Questions and their queries of a file that `nanochat sql build` has written."""
    for row in text.split("\n"):
        try:
            told: Any = json.loads(row)
            question = told["messages"][-2]["content"]
            query = told["sql"]["query"]
        except (ValueError, KeyError, IndexError, TypeError):
            continue
        yield _entry("query", f"{question}\n{query}", name)


def _entry(kind: str, text: str, source: str) -> KnowledgeEntry:
    return KnowledgeEntry(kind=kind, text=text[:MOST_ENTRY_CHARS].strip(), source=source)
