"""The sources of `nanochat sql build`: each file read by what is in it, every record counted as
kept or dropped with its reason."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.runtime.errors import reason as said
from nanochat.sql.definitions import Definitions, comment_on, from_document, from_statement
from nanochat.sql.dialect_parser import (
    LONGEST_QUERY_CHARS,
    guess_dialect,
    parse_one,
    split_statements,
)
from nanochat.sql.doc_sections import (
    DocumentSection,
    is_openapi,
    markdown_sections,
    openapi_sections,
)
from nanochat.sql.learnt_queries import TOO_LONG, LearntQueries
from nanochat.sql.query_log import log_format, read_entry
from nanochat.sql.record_files import Record, RecordFile, open_records, records
from nanochat.sql.transformations import is_transformation, read_transformation

DEFINITION, DESCRIPTION = "table definitions", "descriptions of tables and columns"
SECTION = "sections of documentation"
_YAML = (".yml", ".yaml")
_MARKDOWN = (".md", ".markdown", ".mdx", ".rst", ".txt")
_CREATES = re.compile(
    r"^\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?:create\s+(?:or\s+replace\s+)?(?:\w+\s+){0,2}table|"
    r"comment\s+on)\b",
    re.IGNORECASE | re.DOTALL,
)
_STATEMENT = re.compile(
    r"^\s*(?:(?:--[^\n]*\n|/\*.*?\*/|#[^\n]*\n)\s*)*(?:select|with|create|insert|update|delete|drop|"
    r"alter|\(\s*select|comment\s+on|set|use|explain|pragma|begin)\b",
    re.IGNORECASE | re.DOTALL,
)
GUESSED_FROM = 30  # statements


@dataclass(kw_only=True)
class SourceCounts:
    """What became of a file's records. kept + the sum of dropped is all that was read."""

    path: str
    kind: str = ""
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # reason -> first place

    @property
    def read(self) -> int:
        return self.kept.total() + self.dropped.total()

    def note(self, reason: str, place: str, kept: str) -> None:
        """Count a record as `kept`, or as dropped where there is a reason."""
        if reason:
            self.dropped[reason] += 1
            self.first.setdefault(reason, place)
        else:
            self.kept[kept] += 1


@dataclass(kw_only=True)
class SourceFile:
    """A file and what it was found to be. statements: those of a text file, with their lines."""

    file: RecordFile
    counts: SourceCounts
    kind: str
    statements: list[tuple[int, str]] = field(default_factory=list)
    document: Any = None


class SourceReader:
    """Reads files in two passes: definitions from all of them first, since the words for a query
    need what its columns mean; then queries and documentation.
    """

    def __init__(self, definitions: Definitions, *, dialect: str, query_column: str) -> None:
        self.definitions = definitions
        self.dialect = dialect
        self.query_column = query_column
        self.sources: list[SourceFile] = []
        self.unread: dict[str, str] = {}  # file -> why
        self.sections: list[tuple[str, DocumentSection]] = []

    def open(self, paths: list[Path]) -> None:
        """Look at every file, and take the definitions in them."""
        for path in paths:
            try:
                self.sources.append(self._opened(path))
            except (ValueError, OSError) as error:
                self.unread[str(path)] = said(error).removeprefix(f"{path}: ")
        for source in self.sources:
            if source.kind == "statements":
                self._define(source)
        for source in self.sources:
            if source.kind == "schema":
                path = source.file.path
                for table in from_document(source.document, path.stem, str(path)):
                    self.definitions.add(table)
                    source.counts.note("", "", DEFINITION)

    def _opened(self, path: Path) -> SourceFile:
        file = open_records(path, self.query_column)
        source = SourceFile(file=file, counts=SourceCounts(path=str(path)), kind="")
        if file.kind == "text":
            self._open_text(source)
        elif file.kind == "json" and is_openapi(file.document):
            source.kind, source.document = "api", file.document
        elif file.kind == "json" and from_document(file.document, path.stem, str(path)):
            source.kind, source.document = "schema", file.document
        else:
            self._open_log(source)
        source.counts.kind = source.kind
        return source

    def _open_log(self, source: SourceFile) -> None:
        first = next((r for r in records(source.file) if r.values), None)
        form = log_format(first.values, self.query_column) if first is not None else ""
        if not form:
            names = ", ".join(list(first.values)[:8]) if first is not None else "none"
            raise ValueError(
                f"no column with queries (there are: {names}); name it with --query-column"
            )
        source.kind = f"{form} log" if form != "table" else "table of queries"

    def _open_text(self, source: SourceFile) -> None:
        path, head = source.file.path, source.file.head
        if path.suffix.lower() in _YAML or re.match(r"(openapi|swagger|version):", head):
            source.document = _yaml(source.file.text())
            source.kind = "api" if is_openapi(source.document) else "schema"
            if source.kind == "schema" and not from_document(source.document, path.stem, str(path)):
                raise ValueError("YAML without tables or an OpenAPI document")
        elif is_transformation(path, head):
            source.kind = "transformation"
        elif path.suffix.lower() == ".sql" or (
            path.suffix.lower() not in _MARKDOWN and _STATEMENT.match(head)
        ):
            source.kind = "statements"
            source.statements = split_statements(source.file.text().replace("\r\n", "\n"))
        elif path.suffix.lower() in _MARKDOWN or head.lstrip().startswith("# "):
            source.kind = "documentation"
        else:
            raise ValueError("neither queries, nor definitions, nor documentation")

    def _define(self, source: SourceFile) -> None:
        """The CREATE TABLE and COMMENT ON of a file; its other statements are left for later."""
        rest = []
        creates = [s for s in source.statements if _CREATES.match(s[1])]
        dialect = self.dialect or guess_dialect([text for _, text in creates[:GUESSED_FROM]])
        for line, text in source.statements:
            if not _CREATES.match(text):
                rest.append((line, text))
                continue
            reason, kept = self._definition(text, dialect, str(source.file.path))
            if reason == "" and kept == "":
                rest.append((line, text))
            else:
                source.counts.note(reason, f"line {line}", kept)
        source.statements = rest

    def _definition(self, text: str, dialect: str, path: str) -> tuple[str, str]:
        """(why it is not taken, what it is); two empty ones for what is no definition."""
        if len(text) > LONGEST_QUERY_CHARS:
            return TOO_LONG, ""
        try:
            tree = parse_one(text, dialect)
        except ValueError:
            return f"definitions that cannot be parsed as {dialect}", ""
        table = from_statement(tree, dialect, path)
        if table is not None:
            self.definitions.add(table)
            return "", DEFINITION
        about = comment_on(tree)
        if about is not None:
            self.definitions.describe(*about)
            return "", DESCRIPTION
        return "", ""

    def read(self, queries: LearntQueries) -> None:
        """Take the queries and the documentation of all files."""
        for source in self.sources:
            if source.kind == "statements":
                self._read_statements(source, queries)
            elif source.kind == "transformation":
                self._read_transformation(source, queries)
            elif source.kind == "documentation":
                text = source.file.text()
                self._read_sections(source, markdown_sections(text, source.file.path.stem))
            elif source.kind == "api":
                self._read_sections(source, openapi_sections(source.document))
            elif source.kind != "schema":
                self._read_log(source, queries)

    def _read_log(self, source: SourceFile, queries: LearntQueries) -> None:
        form = source.kind.removesuffix(" log") if source.kind.endswith("log") else "table"
        rows: Iterator[Record] = records(source.file)
        dialect = self.dialect
        if form == "table" and not dialect:
            rows, dialect = self._guessed(rows)
        name = source.file.path.name
        for record in rows:
            if record.problem:
                source.counts.note(record.problem, record.place, "")
                continue
            entry = read_entry(record.values, form, self.query_column)
            reason = entry.dropped or queries.add(
                entry.query,
                self.dialect or entry.dialect or dialect,
                f"{name}:{record.place.split()[-1]}",
                entry.question,
            )
            source.counts.note(reason, record.place, "queries")

    def _guessed(self, rows: Iterator[Record]) -> tuple[Iterator[Record], str]:
        first = list(itertools.islice(rows, GUESSED_FROM))
        texts = [read_entry(r.values, "table", self.query_column).query for r in first if r.values]
        texts = [text for text in texts if 0 < len(text) <= LONGEST_QUERY_CHARS]
        return itertools.chain(first, rows), guess_dialect(texts)

    def _read_statements(self, source: SourceFile, queries: LearntQueries) -> None:
        texts = [t for _, t in source.statements[:GUESSED_FROM] if len(t) <= LONGEST_QUERY_CHARS]
        dialect = self.dialect or guess_dialect(texts)
        for line, text in source.statements:
            place = f"{source.file.path.name}:{line}"
            source.counts.note(queries.add(text, dialect, place), f"line {line}", "queries")

    def _read_transformation(self, source: SourceFile, queries: LearntQueries) -> None:
        made = read_transformation(source.file.path, source.file.text())
        if made.problem:
            source.counts.note(made.problem, "line 1", "")
            return
        dialect = self.dialect or guess_dialect([made.query[:LONGEST_QUERY_CHARS]])
        verdict = queries.add(made.query, dialect, source.file.path.name, made.description)
        source.counts.note(verdict, "line 1", "queries")

    def _read_sections(self, source: SourceFile, sections: Iterator[DocumentSection]) -> None:
        for section in sections:
            source.counts.note(section.dropped, section.place, SECTION)
            if not section.dropped:
                self.sections.append((f"{source.file.path.name}:{section.place}", section))


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise ValueError("YAML that cannot be parsed") from None
