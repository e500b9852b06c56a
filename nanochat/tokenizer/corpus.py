"""The plain text a tokenizer is trained and measured on: shards of the base directory, or any text
files.

The tokenizer stands below the data set code in the import order, so this reads parquet by itself,
in a few lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nanochat.runtime.run_dir import base_dir

SUFFIXES = (".parquet", ".txt", ".md", ".jsonl")
GET_TEXT = (
    "get some with `python -m nanochat.dataset -n 8`, make some with `python -m nanochat.dataset "
    "--embedded`, "
    "or name your own with --data"
)


def corpus_files(data: str | Path | None = None) -> tuple[list[Path], list[Path]]:
    """(training files, validation files) of `data`, a file or a folder; default: the base
    directory's shards.

    Among several shards the last one is validation. ValueError when there is no text.
    """
    place = base_dir() / "base_data" if data is None else Path(data)
    if not place.exists():
        raise ValueError(f"no text in {place}: it does not exist; {GET_TEXT}")
    if place.is_file():
        if place.suffix not in SUFFIXES:
            raise ValueError(
                f"--data={place}: a {place.suffix or 'nameless'} file; use one of "
                f"{', '.join(SUFFIXES)}"
            )
        return [place], []
    if not (shards := sorted(place.glob("shard_*.parquet"))):
        shards = sorted((place / "base_data").glob("shard_*.parquet"))
    if len(shards) > 1:
        return shards[:-1], shards[-1:]
    files = shards or sorted(
        path for path in place.rglob("*") if path.suffix in SUFFIXES and path.is_file()
    )
    if not files:
        raise ValueError(f"no text in {place}; {GET_TEXT}")
    return files, []


def size_estimate(files: list[Path]) -> int:
    """About how many characters the files hold (their uncompressed bytes), to know how far along
    one is.
    """
    import pyarrow.parquet as pq

    total = 0
    for path in files:
        if path.suffix != ".parquet":
            total += path.stat().st_size
            continue
        with _open_parquet(path, pq) as file:
            total += sum(
                file.metadata.row_group(number).total_byte_size
                for number in range(file.num_row_groups)
            )
    return total


def documents(files: list[Path], max_chars: int, doc_cap: int) -> Iterator[str]:
    """Documents in order, each cut to `doc_cap` characters, until `max_chars` characters have been
    given.
    """
    left = max_chars
    for path in files:
        for text in _read(path):
            text = text[: min(doc_cap, left)]
            if text:
                yield text
                left -= len(text)
            if left <= 0:
                return


def _read(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    with open(path, "rb") as start:
        if path.suffix != ".jsonl" and b"\0" in start.read(2**16):
            raise ValueError(
                f"{path}: holds zero bytes, so it is not a text file; remove it or convert it to "
                "UTF-8"
            )
    with open(path, encoding="utf-8", errors="replace") as file:
        if path.suffix != ".jsonl":
            # in pieces, so that one file of a gigabyte needs no gigabyte of memory; cut at a line's
            # end
            while lines := file.readlines(2**16):
                yield "".join(lines)
            return
        for number, line in enumerate(file, 1):
            try:
                text = json.loads(line)["text"] if line.strip() else ""
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(
                    f'{path}:{number}: not a JSON object with a "text" string'
                ) from None
            yield text if isinstance(text, str) else ""


def _read_parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    with _open_parquet(path, pq) as file:
        if "text" not in file.schema_arrow.names:
            raise ValueError(f"{path}: no column 'text', only {', '.join(file.schema_arrow.names)}")
        try:
            for batch in file.iter_batches(256, columns=["text"]):
                for value in batch.column(0):
                    yield value.as_py() or ""
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None


def _open_parquet(path: Path, pq):  # type: ignore[no-untyped-def]
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path}: damaged shard ({reason}); delete it and fetch or make it again")
