"""What `--data` names for pretraining and for the tokenizer: a folder of shards as it is, or your
own text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nanochat.dataloader.parquet_text import read_groups, uncompressed_bytes
from nanochat.dataset.own_text import import_text, shard_files
from nanochat.dataset.shards import list_shards, read_manifest, shard_paths
from nanochat.dataset.text_files import find_files
from nanochat.dataset.text_reader import TextReader
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.errors import rank


def find_shards(data: str | None = None, skip_bad: bool = False) -> tuple[list[Path], Path]:
    """(training shards, validation shard): a folder of shards is used as it is, other text is
    imported first.

    `data` None means the base directory's `base_data`. Raises ValueError saying how to get data
    when there is none.
    """
    if data is None:
        return shard_paths(base_dir() / "base_data", skip_bad)
    folder = _with_shards(expanded(data))
    if list_shards(folder):
        told = shard_files(folder).notes()
    else:
        made = import_text(folder, base_dir() / "own_text" / (folder.resolve().stem or "text"))
        folder, told = made.folder, [made.summary()]
    if rank() == "0":
        for line in told:
            print(line, flush=True)
    return shard_paths(folder, skip_bad)


def _with_shards(folder: Path) -> Path:
    """The folder itself, or the `base_data` in it that has shards."""
    inner = folder / "base_data"
    return inner if not list_shards(folder) and list_shards(inner) else folder


@dataclass(kw_only=True)
class PlainText:
    """Text to learn a vocabulary from. texts: one pass over it. validation: shards held out.
    estimated_characters: from the sizes of the files. notes: what has to be said once the texts
    have been read.
    """

    texts: Iterable[str]
    validation: list[Path]
    estimated_characters: int
    notes: Callable[[], list[str]]


def plain_text(data: str | None = None, encoding: str | None = None) -> PlainText:
    """The training text of `data`: shards but for the last, a file, or the files of a folder.

    `data` None means the base directory's `base_data`. encoding: see `TextReader`. ValueError when
    there is no text.
    """
    place = base_dir() / "base_data" if data is None else _with_shards(expanded(data))
    if data is None or len(list_shards(place)) > 1:
        train, validation = shard_paths(place)
        beside = [] if data is None else shard_files(place).notes()
        return PlainText(
            texts=shard_texts(train),
            validation=[validation],
            estimated_characters=_estimate(train),
            notes=lambda: [f"not read: {validation.name}, the validation shard", *beside],
        )
    found = find_files(place)
    reader = TextReader(found, encoding)
    return PlainText(
        texts=reader,
        validation=[],
        estimated_characters=_estimate(found.files),
        notes=reader.notes,
    )


def shard_texts(paths: Iterable[Path]) -> Iterator[str]:
    """The documents of shards in order, empty ones left out. ValueError naming a damaged shard."""
    for path in paths:
        for group in read_groups(path):
            yield from filter(None, (text.as_py() for text in group))


def _estimate(paths: list[Path]) -> int:
    """About how many characters the files hold: their uncompressed bytes."""
    return sum(
        uncompressed_bytes(path) if path.suffix.lower() == ".parquet" else path.stat().st_size
        for path in paths
    )


def describe(folder: str | Path) -> str:
    """`own text ~/books: 3 shards, 1 of them validation, 24,000 documents, 85.4 M characters`"""
    paths = list_shards(folder)
    manifest = read_manifest(folder)
    parts = [f"{len(paths)} shards, the last is validation"]
    entries = manifest.get("shards", [])
    if entries and all("characters" in entry for entry in entries):
        rows, characters = (
            sum(entry[name] for entry in entries) for name in ("rows", "characters")
        )
        parts.append(f"{rows:,} documents, {characters / 1e6:,.1f} M characters")
    about = manifest.get("source") or "no manifest, source unknown"
    return f"{folder}: {about}: {', '.join(parts)}"
