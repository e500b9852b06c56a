"""Reading the text of shards, and saying in one line what a folder of shards holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nanochat.dataloader.documents import ShardDocuments
from nanochat.dataset.own_text import import_text
from nanochat.dataset.shards import list_shards, read_manifest, shard_paths
from nanochat.runtime.run_dir import base_dir

__all__ = ["describe", "find_shards", "iter_documents", "shard_paths"]


def iter_documents(
    paths: Sequence[str | Path], *, max_chars: int | None = None, doc_cap: int | None = None
) -> Iterator[str]:
    """Documents of shards in order: each cut to doc_cap characters, until max_chars characters have
    been given.

    For training a tokenizer and for evaluation; the dataloader reads shards through
    `ShardDocuments`.
    """
    documents = ShardDocuments(paths)
    given = 0
    for index in range(len(documents)):
        if max_chars is not None and given >= max_chars:
            return
        text = documents.raw(index)
        text = text if doc_cap is None else text[:doc_cap]
        given += len(text)
        yield text


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


def find_shards(data: str | None = None, skip_bad: bool = False) -> tuple[list[Path], Path]:
    """(training shards, validation shard): a folder of shards is used as it is, other text is
    imported first.

    `data` None means the base directory's `base_data`. Raises ValueError saying how to get data
    when there is none.
    """
    if data is None:
        return shard_paths(base_dir() / "base_data", skip_bad)
    folder = Path(data).expanduser()
    if list_shards(folder) or list_shards(folder / "base_data"):
        return shard_paths(folder, skip_bad)
    out_dir = base_dir() / "own_text" / (folder.resolve().stem or "text")
    return shard_paths(import_text(folder, out_dir).folder)
