"""The column `text` of parquet files: found, checked and read in one place.

Strings may be dictionary-encoded. Files whose text stands in another column are not damaged: the
error names the columns there are. Nobody is told to delete a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLAIN = ("string", "large_string")


def row_counts(path: Path) -> list[int]:
    """Rows of every row group. ValueError when the file cannot be read or has no text column."""
    with _opened(path) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]


def read_group(path: Path, group: int) -> Any:
    """The texts of one row group, an Arrow array of strings, checked to be UTF-8. ValueError names
    the file.
    """
    with _opened(path) as file:
        return _texts(file, group)


def read_groups(path: Path) -> Iterator[Any]:
    """`read_group` of every row group in turn."""
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            yield _texts(file, group)


def uncompressed_bytes(path: Path) -> int:
    """About how many characters the text column holds."""
    with _opened(path) as file:
        at = file.schema_arrow.names.index("text")
        groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
        return sum(group.column(at).total_uncompressed_size for group in groups)


def damaged_shard(path: Path, error: Exception) -> ValueError:
    """The one message for a shard that cannot be read."""
    reason = (str(error).strip().split("\n") or [""])[0] or type(error).__name__
    return ValueError(
        f"{path}: damaged or unreadable text shard ({reason}); export or copy it again if it is "
        "yours, else move it away and repeat the `python -m nanochat.dataset` command that made it"
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open file with a usable text column; whatever goes wrong in reading is told as damage."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    unreadable = (OSError, ValueError, KeyError, NotImplementedError, pa.ArrowException)
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except unreadable as error:
        raise damaged_shard(path, error) from error
    with file:
        if problem := _column_problem(file.schema_arrow):
            raise ValueError(f"{path}: {problem}")
        try:
            yield file
        except unreadable as error:
            raise damaged_shard(path, error) from error


def _column_problem(schema: Any) -> str:
    """Why a file's text cannot be read, or ""."""
    columns = [(field.name, field.type) for field in schema]
    has = ", ".join(f"{name}: {kind}" for name, kind in columns) or "none"
    kinds = [kind for name, kind in columns if name == "text"]
    if len(kinds) > 1:
        return f"the column 'text' is there {len(kinds)} times (columns {has}); keep one of them"
    if kinds and _is_string(kinds[0]):
        return ""
    named = [repr(name) for name, kind in columns if _is_string(kind) and name != "text"]
    fix = f"; rename {' or '.join(named)} to 'text'" if named else "; text shards need one"
    return f"no column 'text' of strings (it has {has}){fix}"


def _is_string(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return str(kind) in (*PLAIN, "string_view")


def _texts(file: Any, group: int) -> Any:
    import pyarrow as pa

    column = file.read_row_group(group, columns=["text"]).column("text")
    if str(column.type) not in PLAIN:
        column = column.cast(pa.large_string())
    column.validate(full=True)
    return column.combine_chunks()
