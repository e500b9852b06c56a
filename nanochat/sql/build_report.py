"""What `nanochat sql build` has read, kept, dropped and replaced: lines for the terminal, and the
report beside the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.sql.learnt_queries import LearntQuery
from nanochat.sql.source_reader import SourceReader
from nanochat.sql.stand_ins import SQLRedactor

SHOWN_FILES = 50


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """The numbers of a build. inferred: tables known from queries alone; unanswered: queries for
    which the endpoint wrote no question.
    """

    reader: SourceReader
    redactor: SQLRedactor
    queries: Sequence[LearntQuery]
    train: Sequence[dict[str, Any]]
    test: Sequence[dict[str, Any]]
    documents: int
    tables: int
    inferred: int
    unanswered: int
    cost: str

    def lines(self) -> list[str]:
        """A few lines for the terminal."""
        read = sum(source.counts.read for source in self.reader.sources)
        kept = self._kept()
        told = [f"read           {read:,} records of {len(self.reader.sources):,} files"]
        told += [f"  kept         {count:,} {what}" for what, count in kept.most_common()]
        told += [f"  dropped      {count:,} {why}" for why, count in self._dropped().most_common()]
        told += [f"not read       {path}: {why}" for path, why in self.reader.unread.items()]
        told += [f"replaced       {n:,} {kind}" for kind, n in self.redactor.counts.most_common()]
        told += [f"questions      {n:,} from {where}" for where, n in self._origins().most_common()]
        if self.unanswered:
            told.append(f"  dropped      {self.unanswered:,} queries without a question")
        if self.cost:
            told.append(f"endpoint       {self.cost}")
        told.append(f"tables         {self.tables:,}, {self.inferred:,} known from queries alone")
        told.append(
            f"split          {len(self.train):,} rows of {len(_shapes(self.train)):,} shapes to "
            f"train on, {len(self.test):,} of {len(_shapes(self.test)):,} to examine with, "
            f"{len(_shapes(self.train) & _shapes(self.test))} shapes on both sides"
        )
        return told

    def markdown(self) -> str:
        """The whole report."""
        files = [
            [
                s.counts.path,
                s.kind,
                f"{s.counts.read:,}",
                f"{s.counts.kept.total():,}",
                _said(s.counts.dropped),
            ]
            for s in self.reader.sources[:SHOWN_FILES]
        ]
        places = [
            [why, s.counts.path, place]
            for s in self.reader.sources[:SHOWN_FILES]
            for why, place in s.counts.first.items()
        ]
        parts = [
            "# What was built",
            "\n".join(f"    {line}" for line in self.lines()),
            "## Files",
            _table(["file", "what it is", "records", "kept", "dropped"], files),
            _table(["not read", "why"], list(map(list, self.reader.unread.items()))),
            "## Where each reason was first met",
            _table(["reason", "file", "place"], places),
            "## Queries by",
            _table(["", "", "queries"], self._by()),
        ]
        if len(self.reader.sources) > SHOWN_FILES:
            parts.append(f"(the first {SHOWN_FILES} of {len(self.reader.sources):,} files)")
        return "\n\n".join(part for part in parts if part) + "\n"

    def _kept(self) -> Counter[str]:
        return sum((s.counts.kept for s in self.reader.sources), Counter())

    def _dropped(self) -> Counter[str]:
        return sum((s.counts.dropped for s in self.reader.sources), Counter())

    def _origins(self) -> Counter[str]:
        return Counter(query.origin for query in self.queries)

    def _by(self) -> list[list[str]]:
        counts = {
            "dialect": Counter(query.dialect for query in self.queries),
            "tables read": Counter(str(len(query.tables)) for query in self.queries),
            "question from": self._origins(),
        }
        return [
            [name, value, f"{count:,}"]
            for name, counted in counts.items()
            for value, count in counted.most_common()
        ]


def _shapes(rows: Iterable[dict[str, Any]]) -> set[str]:
    return {row["sql"]["shape"] for row in rows}


def _said(counted: Counter[str]) -> str:
    return "; ".join(f"{count:,} {why}" for why, count in counted.most_common())


def _table(names: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; nothing without rows."""
    if not rows:
        return ""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )
