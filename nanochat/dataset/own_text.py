"""Your own text -> shards: files are read in a fixed order, exact duplicates dropped, split by
content hash, shuffled.

Whether a document is training or validation follows from the SHA-256 of its text alone, so it stays
on its side when files are added, renamed or reordered. A folder that already is in shard layout
keeps its own split.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.dataloader.parquet_text import damaged_shard
from nanochat.dataset.shards import (
    MANIFEST,
    list_shards,
    measure_shard,
    read_manifest,
    replacing,
    shard_entry,
    shard_paths,
    write_manifest,
    write_shards,
)
from nanochat.dataset.text_files import TextFiles, find_files
from nanochat.dataset.text_reader import TextReader, notes_of, split_text
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.files import locked, sha256_file
from nanochat.runtime.progress import Progress

KIND = "own text"
IMPORT_VERSION = 2  # part of the fingerprint: raise it when the same files would give other shards
VALIDATION_SHARE = 0.05
VALIDATION_CHARACTERS = 20_000_000  # a validation set larger than this measures nothing more
SHUFFLE_CHARACTERS = 200_000_000  # shuffled in memory at a time
FEW_DOCUMENTS = 20  # below this, documents are cut so that both sides get some
SMALLEST_PIECE = 80
LINK_BYTES = 2_000_000_000  # shard folders larger than this are linked rather than copied


@dataclass(kw_only=True)
class ImportResult:
    """What an import made. unchanged: the shards were already there, made from the same files.
    notes: what was read in another encoding than UTF-8, and what was not read.
    """

    folder: Path
    train_documents: int
    validation_documents: int
    duplicates: int
    characters: int
    notes: list[str]
    unchanged: bool

    def summary(self) -> str:
        """For people: one line, and one for each note."""
        state = "already there, unchanged" if self.unchanged else "imported"
        counts = (
            f"{self.folder}: {self.train_documents:,} training and {self.validation_documents:,} "
            f"validation documents, {self.characters:,} characters, {self.duplicates:,} exact "
            f"duplicates dropped ({state})"
        )
        return "\n".join([counts, *self.notes])


def import_text(
    source: str | Path,
    out_dir: str | Path,
    *,
    licence: str = "not stated",
    encoding: str | None = None,
) -> ImportResult:
    """Make shards in out_dir from a file or folder. Does nothing when they are there, made from the
    same content.

    encoding: that of text files which are not UTF-8 (default: judged file by file). Raises
    ValueError for a source without usable text, an unreadable file, or an out_dir that holds
    downloads.
    """
    source, out_dir = expanded(source), Path(out_dir)
    is_shards = len(list_shards(source)) >= 2
    if is_shards and out_dir.is_dir() and source.samefile(out_dir):
        raise ValueError(
            f"--data={source}: is the folder the shards are kept in already; leave --data away"
        )
    found = shard_files(source) if is_shards else find_files(source, exclude=out_dir)
    hashes = [sha256_file(path) for path in found.files]
    fingerprint = _fingerprint(found, hashes, encoding)
    with locked(out_dir):
        manifest = read_manifest(out_dir)
        if manifest.get("fingerprint") == fingerprint:
            try:
                shard_paths(out_dir)
                return _result(out_dir, manifest, found, unchanged=True)
            except ValueError:
                pass  # a shard is gone or cut: make them again
        about = {"source": str(source), "licence": licence}
        if is_shards:
            made = _adopt(found, hashes, out_dir, fingerprint=fingerprint, **about)
        else:
            split = _Split(found, encoding)
            split.extra["fingerprint"] = fingerprint
            documents = (split.train(), split.validation())
            made = write_shards(out_dir, *documents, kind=KIND, extra=split.extra, **about)
        return _result(out_dir, made, found, unchanged=False)


def shard_files(source: Path) -> TextFiles:
    """The shards of a folder in shard layout; whatever else is in it is told."""
    shards = list_shards(source)
    found = TextFiles(source=source, files=shards)
    for path in sorted({*source.iterdir()} - {*shards, source / MANIFEST}):
        found.leave_out(path, "files and folders beside the shards")
    return found


class _Unique:
    """Passes each text once; counts the rest."""

    def __init__(self) -> None:
        self.duplicates = 0
        self._seen: set[bytes] = set()

    def __call__(self, texts: Iterable[str]) -> Iterator[tuple[bytes, str]]:
        """(SHA-256, text) of the texts not seen before."""
        for text in texts:
            digest = _digest(text)
            if digest[:16] in self._seen:
                self.duplicates += 1
            else:
                self._seen.add(digest[:16])
                yield digest, text


class _Split:
    """Deals documents to the two sides. Iterate `train()` to its end, then `validation()`."""

    def __init__(self, found: TextFiles, encoding: str | None):
        self.found = found
        self.reader = TextReader(found, encoding)
        self.unique = _Unique()
        self.share = _validation_share(found.files)
        self.held_out: list[tuple[bytes, str]] = []
        self.extra: dict[str, Any] = {}  # manifest entries, filled at the end of train()

    def train(self) -> Iterator[str]:
        """Training documents in blocks ordered by hash: a shuffle that needs no seed."""
        block: list[tuple[bytes, str]] = []
        size, blocks = 0, 0
        with Progress(len(self.found.files), "reading text") as progress:
            for digest, text in self.unique(self.reader.documents(progress.advance)):
                if _position(digest) < self.share:
                    self.held_out.append((digest, text))
                    continue
                block.append((digest, text))
                size += len(text)
                if size >= SHUFFLE_CHARACTERS:
                    yield from (text for _, text in sorted(block))
                    block, size, blocks = [], 0, blocks + 1
        if not blocks:
            block = self._both_sides(block)
        yield from (text for _, text in sorted(block))
        self.extra["duplicates"] = self.unique.duplicates
        self.extra["read_as"] = self.reader.read_as

    def validation(self) -> Iterator[str]:
        """Validation documents, ordered by hash."""
        for _, text in sorted(self.held_out):
            yield text

    def _both_sides(self, train: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
        """A small source: cut few documents into more, give each side at least one. Returns the
        training side.
        """
        everything = sorted(train + self.held_out)
        if len(everything) < FEW_DOCUMENTS:
            characters = sum(len(text) for _, text in everything)
            limit = max(SMALLEST_PIECE, characters // (2 * FEW_DOCUMENTS))
            fresh = _Unique()
            everything = sorted(
                fresh(piece for _, text in everything for piece in split_text(text, limit))
            )
            self.unique.duplicates += fresh.duplicates
        if len(everything) < 2:
            raise ValueError(
                f"--data={self.found.source}: too little text to split into training and "
                "validation; give a few paragraphs"
            )
        # The lowest hashes are validation: those under the share, or the lowest one when there is
        # none.
        count = sum(_position(digest) < self.share for digest, _ in everything)
        count = min(max(1, count), len(everything) - 1)
        self.held_out = everything[:count]
        return everything[count:]


def _adopt(
    found: TextFiles,
    hashes: list[str],
    out_dir: Path,
    *,
    fingerprint: str,
    source: str,
    licence: str,
) -> dict[str, Any]:
    """Take over a folder in shard layout: same names, same split. Copies, or hard links when that
    saves much space.
    """
    known = {entry["name"]: entry for entry in read_manifest(found.source).get("shards", [])}
    entries = []
    big = sum(path.stat().st_size for path in found.files) > LINK_BYTES
    with replacing(out_dir, KIND) as building, Progress(len(hashes), "shards") as progress:
        for path, sha256 in zip(found.files, hashes, strict=True):
            before = known.get(path.name, {})
            if before.get("sha256", sha256) != sha256:
                raise damaged_shard(
                    path, ValueError("its SHA-256 is not the one in the manifest beside it")
                )
            rows, characters = measure_shard(path)
            is_last = path == found.files[-1]
            if is_last and not characters:
                raise ValueError(
                    f"{path}: the last shard is validation, and it holds no text; leave it out, or "
                    "give the files other names than shard_*.parquet to have them split"
                )
            target = building / path.name
            if not (big and _linked(path, target)):
                shutil.copyfile(path, target)
            about = {"source": source, "licence": licence, **before}
            entries.append(
                about
                | shard_entry(target, rows, characters)
                | {"split": "validation" if is_last else "train"}
            )
            progress.advance()
        about = {"kind": KIND, "source": source, "licence": licence}
        return write_manifest(building, entries, **about, duplicates=0, fingerprint=fingerprint)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        return False
    return True


def _validation_share(files: list[Path]) -> float:
    size = sum(
        path.stat().st_size * (3 if path.suffix.lower() == ".parquet" else 1) for path in files
    )
    return min(VALIDATION_SHARE, VALIDATION_CHARACTERS / max(1, size))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()


def _position(digest: bytes) -> float:
    """A hash as a number in [0, 1)."""
    return int.from_bytes(digest[:8], "big") / 2**64


def _fingerprint(found: TextFiles, hashes: list[str], encoding: str | None) -> str:
    """Stands for the content: relative names and hashes, not times or absolute places."""
    root = found.source if found.source.is_dir() else found.source.parent
    names = [path.relative_to(root).as_posix() for path in found.files]
    content = [IMPORT_VERSION, names, hashes, encoding]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _result(
    folder: Path, manifest: dict[str, Any], found: TextFiles, unchanged: bool
) -> ImportResult:
    sides = {"train": 0, "validation": 0}
    for entry in manifest["shards"]:
        sides[entry["split"]] += entry["rows"]
    return ImportResult(
        folder=folder,
        train_documents=sides["train"],
        validation_documents=sides["validation"],
        duplicates=manifest.get("duplicates", 0),
        characters=sum(entry["characters"] for entry in manifest["shards"]),
        notes=notes_of(manifest.get("read_as", {}), found),
        unchanged=unchanged,
    )
