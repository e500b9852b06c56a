"""Rows of exported tables, whatever the file: JSON, one object a line or one document, TSV and CSV
with names, Parquet; plain or gzip. What a row cannot be read from is a reason, never silence."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from nanochat.dataset.file_kinds import special_kind, what_it_is
from nanochat.dataset.text_encoding import text_encoding
from nanochat.runtime.errors import reason

Kind = Literal["json-lines", "json", "tsv", "csv", "parquet", "text"]
HEAD_CHARS = 1 << 16
QUERY_COLUMNS = ("query", "sql", "query_text", "sql_text", "statement", "sql_query", "query_sql")
_DELIMITERS: dict[Kind, str] = {"tsv": "\t", "csv": ","}
CUT_OFF = "lines that are cut off or are no record"
WIDTH = "lines with another number of fields than the header"
_TSV_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "'": "'"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row and its place (`line 17`), or why it cannot be read."""

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """A file, how it is written, and its beginning. document: what a file that is one JSON document
    holds.
    """

    path: Path
    kind: Kind
    head: str = ""
    codec: str = "utf-8"
    document: Any = None

    def text(self) -> str:
        """The whole file; damaged bytes as U+FFFD."""
        with _opened(self.path, self.codec) as file:
            return file.read()


def open_records(path: Path, query_column: str = "") -> RecordFile:
    """Look at a file's content. query_column: a column whose name makes a line a header. ValueError
    for a file that is neither text nor Parquet.
    """
    if special := special_kind(path):
        raise ValueError(f"{path}: {special}, not a file")
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return RecordFile(path=path, kind="parquet")
    if magic[:2] != b"\x1f\x8b" and (kind := what_it_is(path)):
        raise ValueError(f"{path}: {kind}")
    codec = "utf-8-sig" if magic[:2] == b"\x1f\x8b" else _codec(path)
    with _opened(path, codec) as text:
        head = text.read(HEAD_CHARS)
    start = head.lstrip()
    if start[:1] in ("{", "["):
        return _json_file(path, codec, start)
    first = head.split("\n", 1)[0].rstrip("\r")
    for kind, delimiter in _DELIMITERS.items():
        if _is_header(first, delimiter, query_column):
            return RecordFile(path=path, kind=kind, head=head, codec=codec)
    if path.suffix.lower() in (".csv", ".tsv"):
        raise ValueError(
            f"{path}: no column with queries in `{first[:80]}`; name it with --query-column"
        )
    return RecordFile(path=path, kind="text", head=head, codec=codec)


def _codec(path: Path) -> str:
    """Of a file that is not wholly one encoding: UTF-8, line by line."""
    try:
        found = text_encoding(path).codec
    except ValueError:
        return "utf-8-sig"
    return "utf-8-sig" if found == "utf-8" else found


def _opened(path: Path, codec: str, newline: str = "\n") -> TextIO:
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    if is_packed:
        return io.TextIOWrapper(gzip.open(path), codec, errors="replace", newline=newline)
    return open(path, encoding=codec, errors="replace", newline=newline)


def _json_file(path: Path, codec: str, start: str) -> RecordFile:
    first = start.split("\n", 1)[0]
    lines = [line for line in start.split("\n")[1:3] if line.strip()]
    if _is_json(first) and first.startswith("{") and (not lines or lines[0].startswith("{")):
        if lines or not _is_document(first):
            return RecordFile(path=path, kind="json-lines", head=start, codec=codec)
    if len(first) >= HEAD_CHARS - 1 and first.startswith("{"):  # a line longer than what was read
        return RecordFile(path=path, kind="json-lines", head=start, codec=codec)
    with _opened(path, codec) as file:
        try:
            document = json.load(file)
        except (ValueError, RecursionError):
            return RecordFile(path=path, kind="json-lines", head=start, codec=codec)
    return RecordFile(path=path, kind="json", head=start, codec=codec, document=document)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_document(line: str) -> bool:
    """Whether one line of JSON is a document of its own: a schema, an API, a whole result."""
    known = json.loads(line)
    return bool({"openapi", "swagger", "schema", "fields", "data", "models", "meta"} & known.keys())


def _is_header(line: str, delimiter: str, query_column: str) -> bool:
    """Whether a line names columns, one of them that of queries or of an audit log."""
    try:
        names = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return False
    known = {name.strip().casefold() for name in names}
    wanted = {*QUERY_COLUMNS, "protopayload_auditlog", "protopayload_auditlog.metadatajson"}
    return bool(known & (wanted | {query_column.casefold()} - {""}))


def records(file: RecordFile) -> Iterator[Record]:
    """The rows of a file, one after the other; the file is never in memory as a whole unless it is
    one JSON document.
    """
    if file.kind == "parquet":
        yield from _parquet_records(file.path)
    elif file.kind == "json":
        yield from _document_records(file.document)
    elif file.kind == "json-lines":
        yield from _json_records(file)
    elif file.kind == "tsv" and not _is_quoted(file.head):
        yield from _tsv_records(file)
    elif file.kind in ("tsv", "csv"):
        yield from _csv_records(file, "\t" if file.kind == "tsv" else ",")


def _json_records(file: RecordFile) -> Iterator[Record]:
    with _opened(file.path, file.codec) as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip().rstrip(",")
            if not line or line in "[]":
                continue
            place = f"line {number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                yield Record(place=place, problem=CUT_OFF)
                continue
            if not isinstance(value, dict):
                yield Record(place=place, problem=CUT_OFF)
            else:
                yield Record(place=place, values=value)


def _document_records(document: Any) -> Iterator[Record]:
    """The objects of a list, of ClickHouse's `data`, or the one object."""
    rows = document
    if isinstance(document, dict):
        rows = document.get("data") if isinstance(document.get("data"), list) else [document]
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict):
            yield Record(place=f"record {number}", values=row)
        else:
            yield Record(place=f"record {number}", problem=CUT_OFF)


def _is_quoted(head: str) -> bool:
    """Whether a file with tabs is quoted like CSV, as spreadsheets write it."""
    lines = head.split("\n")[:20]
    return any('\t"' in line or line.startswith('"') for line in lines) and "\\n" not in head


def _tsv_records(file: RecordFile) -> Iterator[Record]:
    """ClickHouse's TSVWithNames (and WithNamesAndTypes): tabs and line ends inside of a value are
    written with a backslash.
    """
    with _opened(file.path, file.codec) as lines:
        names = next(lines).rstrip("\r\n").split("\t")
        for number, line in enumerate(lines, 2):
            fields = line.removesuffix("\n").removesuffix("\r").split("\t")
            if fields == [""] or (number == 2 and _are_types(fields)):
                continue
            if len(fields) != len(names):
                yield Record(place=f"line {number}", problem=WIDTH)
                continue
            values = [_unescaped(value) for value in fields]
            yield Record(place=f"line {number}", values=dict(zip(names, values, strict=True)))


def _are_types(fields: Sequence[str]) -> bool:
    known = ("String", "DateTime", "UInt", "Int", "Enum", "Array(", "LowCardinality", "Nullable")
    return len(fields) > 1 and all(
        value.startswith((*known, "Date", "Map", "UUID")) for value in fields
    )


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    parts = value.split("\\")
    found = [parts[0]]
    rest = iter(parts[1:])
    for part in rest:
        if part == "":  # two backslashes are one
            found.append("\\" + next(rest, ""))
        else:
            found.append(_TSV_ESCAPES.get(part[0], part[0]) + part[1:])
    return "".join(found)


def _csv_records(file: RecordFile, delimiter: str) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    with _opened(file.path, file.codec, newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        names = next(reader)
        for number in itertools.count(2):
            place = f"line {reader.line_num + 1}"
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield Record(place=place, problem=CUT_OFF)
                continue
            if not fields or (number == 2 and _are_types(fields)):
                continue
            if len(fields) != len(names):
                yield Record(place=place, problem=WIDTH)
            else:
                yield Record(place=place, values=dict(zip(names, fields, strict=True)))


def _parquet_records(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: a damaged Parquet file ({reason(error)})") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield Record(place=f"row {number}", values=row)
