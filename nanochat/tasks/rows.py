"""Rows of JSONL and parquet files, each with its place (`file:line`) for who has to correct it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanochat.dataset.file_kinds import what_it_is
from nanochat.dataset.strict_json import parse_json


class Rows(Sequence[Any]):
    """Rows by index, decoded when asked for. `origin` is the file or folder they are from,
    `own_file` whether people can correct them (JSONL) or only fetch them again (parquet).
    """

    own_file = True

    def __init__(self, origin: Path) -> None:
        self.origin = origin

    def place(self, index: int) -> str:
        """Where row `index` stands, for a message about it."""
        raise NotImplementedError

    def each(self) -> Iterator[Any]:
        """All rows in order; for one that cannot be read, the ValueError that says so."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.origin} has {len(self)} rows, so there is no row {index}")
        return self._row(index % len(self))

    def _row(self, index: int) -> Any:
        raise NotImplementedError


class JsonRows(Rows):
    """Lines of JSONL files; blank lines are passed over. A line ends at a newline only: other
    separators may stand inside a JSON string.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files[0] if len(files) == 1 else files[0].parent)
        self._lines: list[bytes] = []
        self._places: list[tuple[Path, int]] = []
        for path in files:
            lines = _read(path).removeprefix(codecs.BOM_UTF8).split(b"\n")
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    self._lines.append(line)
                    self._places.append((path, number))

    def __len__(self) -> int:
        return len(self._lines)

    def place(self, index: int) -> str:
        path, number = self._places[index]
        return f"{path}:{number}"

    def each(self) -> Iterator[Any]:
        for index in range(len(self)):
            try:
                yield self._row(index)
            except ValueError as error:
                yield error

    def _row(self, index: int) -> Any:
        try:
            return parse_json(self._lines[index])
        except ValueError as error:
            raise ValueError(f"{self.place(index)}: {error}") from None


class ParquetRows(Rows):
    """Rows of parquet files of one data set, as the hub gives them out."""

    own_file = False

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow as pa

        super().__init__(files[0] if len(files) == 1 else files[0].parent)
        tables = [read_parquet(path) for path in files]
        self._table = pa.concat_tables(tables, promote_options="default").combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def place(self, index: int) -> str:
        return f"{self.origin}, row {index + 1}"

    def each(self) -> Iterator[Any]:
        for batch in self._table.to_batches(max_chunksize=1000):
            yield from batch.to_pylist()

    def _row(self, index: int) -> Any:
        return self._table.slice(index, 1).to_pylist()[0]


def read_rows(files: Sequence[Path]) -> Rows:
    """Rows of JSONL or parquet files. ValueError naming the file that cannot be read or that has
    none.
    """
    rows = JsonRows(files) if files[0].suffix == ".jsonl" else ParquetRows(files)
    if not len(rows):
        raise ValueError(f"{rows.origin}:1: holds no rows; put the data there, or another name")
    return rows


def read_parquet(path: Path) -> Any:
    """A whole parquet file as a table. ValueError where it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{path}: not a readable parquet file ({error}); move it away and fetch it again"
        ) from None


def _read(path: Path) -> bytes:
    try:
        if kind := what_it_is(path):
            raise ValueError(f"{path}: not JSONL but {kind}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
