"""The shard format that every text source is turned into, and its manifest.

A folder of `shard_00000.parquet ...`: one string column `text`, zstd, row groups of 1,000 documents
for training and 64 for validation (so that many ranks can share it). The shard with the highest
number is validation. `manifest.json` holds for each shard its SHA-256, bytes, rows, characters,
source and licence. Folders without a manifest (public downloads made by other tools) are read as
well.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nanochat.dataloader.parquet_text import damaged_shard, read_groups
from nanochat.runtime.files import atomic_write, sha256_file

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest; one without it was written by another program
TRAIN_ROW_GROUP = 1000
VALIDATION_ROW_GROUP = 64
SHARD_NAME = re.compile(r"shard_(\d{5,})\.parquet")
GET_DATA = (
    "get some with `python -m nanochat.dataset -n 8` (public shards), `--data DIR_OR_FILE` (your "
    "own text) "
    "or `--embedded` (made on this machine, no internet needed)"
)


def shard_name(index: int) -> str:
    """`shard_00012.parquet`"""
    return f"shard_{index:05d}.parquet"


def list_shards(folder: str | Path) -> list[Path]:
    """Complete shards of a folder, by number. Unfinished downloads and other files are not
    listed."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    numbered = [
        (match, path) for path in folder.iterdir() if (match := SHARD_NAME.fullmatch(path.name))
    ]
    return [path for match, path in sorted(numbered, key=lambda pair: int(pair[0].group(1)))]


def shard_paths(folder: str | Path, skip_bad: bool = False) -> tuple[list[Path], Path]:
    """(training shards, validation shard) of a folder, or of the `base_data` inside it.

    Raises ValueError when there are fewer than two shards, or a shard's size is not the manifest's
    (`skip_bad`: the validation shard's; the reader of the others finds out).
    """
    folder = Path(folder)
    if not list_shards(folder) and (folder / "base_data").is_dir():
        folder = folder / "base_data"
    paths = list_shards(folder)
    if not paths:
        raise ValueError(f"{folder}: no text shards here; {GET_DATA}")
    manifest = read_manifest(folder)
    if manifest.get("unfinished"):
        raise ValueError(
            f"{folder}: the shards are not complete; run the `python -m nanochat.dataset` "
            "command again"
        )
    if len(paths) == 1:
        raise ValueError(
            f"{folder}: only {paths[0].name} is here; training and validation need one each; "
            f"{GET_DATA}"
        )
    listed = {entry["name"]: entry for entry in manifest.get("shards", [])}
    for path in paths[-1:] if skip_bad else paths:
        expected = listed.get(path.name, {}).get("bytes")
        if expected is not None and path.stat().st_size != expected:
            raise damaged_shard(
                path, ValueError(f"{path.stat().st_size:,} bytes, but {MANIFEST} says {expected:,}")
            )
    missing = sorted(set(listed) - {path.name for path in paths})
    if missing:
        raise ValueError(
            f"{folder}: {missing[0]} is in {MANIFEST} but not here; run the command that made it "
            "again"
        )
    return paths[:-1], paths[-1]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The folder's manifest, or {} when it has none of ours. Raises ValueError when it cannot be
    read.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: unreadable ({error}); move it away, then make the data again"
        ) from error
    ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return manifest if ours and isinstance(manifest.get("shards"), list) else {}


def write_manifest(
    folder: str | Path, shards: list[dict[str, Any]], **about: Any
) -> dict[str, Any]:
    """Write manifest.json: `about` (source, licence, fingerprint ...) and one entry per shard."""
    manifest = {
        "format": FORMAT,
        **about,
        "shards": sorted(shards, key=lambda entry: entry["name"]),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    # Names of files may hold bytes that are not UTF-8; JSON has escapes for those.
    atomic_write(Path(folder) / MANIFEST, text.encode("utf-8", "backslashreplace"))
    return manifest


def verify_shards(folder: str | Path) -> list[str]:
    """Read every shard completely; one line per problem found. SHA-256 is compared where the
    manifest has it.
    """
    listed = {entry["name"]: entry for entry in read_manifest(folder).get("shards", [])}
    problems = [
        f"{name}: missing"
        for name in sorted(set(listed) - {path.name for path in list_shards(folder)})
    ]
    for path in list_shards(folder):
        expected = listed.get(path.name, {}).get("sha256")
        if expected and sha256_file(path) != expected:
            problems.append(f"{path.name}: SHA-256 differs from {MANIFEST}")
            continue
        try:
            measure_shard(path)
        except ValueError as error:
            problems.append(str(error))
    return problems


def shard_entry(path: Path, rows: int, characters: int, **about: Any) -> dict[str, Any]:
    """What the manifest says of one shard; about: its source, licence and split."""
    return {
        "name": path.name,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "rows": rows,
        "characters": characters,
        **about,
    }


def measure_shard(path: Path) -> tuple[int, int]:
    """(rows, characters) of a shard. Reads all of it, so a damaged one raises ValueError."""
    import pyarrow.compute as pc

    rows = characters = 0
    for column in read_groups(path):
        rows += len(column)
        characters += pc.sum(pc.utf8_length(column)).as_py() or 0
    return rows, characters


def write_documents(
    folder: Path,
    texts: Iterable[str],
    *,
    source: str,
    licence: str,
    validation: bool = False,
    first: int = 0,
    shard_characters: int = 200_000_000,
) -> list[dict[str, Any]]:
    """Write documents into numbered shards of a folder; returns their manifest entries. A failure
    leaves no unfinished shard.

    validation: write small row groups. shard_characters: start a new shard after so many. first:
    number of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"source": source, "licence": licence, "split": "validation" if validation else "train"}
    row_group = VALIDATION_ROW_GROUP if validation else TRAIN_ROW_GROUP
    entries: list[dict[str, Any]] = []
    rest = iter(texts)
    for text in rest:
        path = folder / shard_name(first + len(entries))
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            documents = itertools.chain([text], rest)
            rows, characters = _write_shard(unfinished, documents, row_group, shard_characters)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        os.replace(unfinished, path)
        entries.append(shard_entry(path, rows, characters, **about))
    return entries


def _write_shard(
    path: Path, texts: Iterable[str], row_group: int, limit_characters: int
) -> tuple[int, int]:
    """(rows, characters) of a shard of the texts up to the limit."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.string())])
    rows = characters = 0
    buffer: list[str] = []
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        # 4 bytes a page let a reader notice a flipped bit instead of training on garbage.
        write_page_checksum=True,
    ) as writer:
        for text in texts:
            buffer.append(text)
            rows += 1
            characters += len(text)
            if len(buffer) >= row_group or characters >= limit_characters:
                writer.write_table(pa.table([buffer], schema=schema), row_group_size=row_group)
                buffer = []
            if characters >= limit_characters:
                break
        if buffer:
            writer.write_table(pa.table([buffer], schema=schema), row_group_size=row_group)
    return rows, characters


@contextlib.contextmanager
def replacing(folder: str | Path, kind: str) -> Iterator[Path]:
    """A new, empty folder inside `folder` to build shards in; on success its files take the place
    of the old shards.

    Raises ValueError when `folder` holds shards that cannot be made again from here (downloads).
    """
    folder = Path(folder)
    check_replaceable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder, prefix=".building-"))
    try:
        yield building
        # A crash below is seen, and may be overwritten. The manifest comes last.
        write_manifest(folder, [], kind=kind, unfinished=True)
        for path in list_shards(folder):
            path.unlink()
        for path in sorted(building.iterdir(), key=lambda path: path.name == MANIFEST):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise ValueError when making other data in `folder` would delete downloaded shards."""
    paths = list_shards(folder)
    if paths and read_manifest(folder).get("kind") not in ("own text", "embedded"):
        raise ValueError(
            f"{folder} holds {len(paths)} shards that were not made on this machine and would be "
            "lost: move them away, name another folder with --out, or set NANOCHAT_BASE_DIR"
        )


def write_shards(
    folder: str | Path,
    train: Iterable[str],
    validation: Iterable[str],
    *,
    kind: str,
    source: str,
    licence: str,
    extra: dict[str, Any] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Replace the folder's data by these documents, all or nothing; returns the manifest.

    kind: "own text" or "embedded", which may be replaced without asking. about: more manifest
    entries; extra: the same for those that are known only once the documents have been read.
    """
    origin: dict[str, Any] = {"source": source, "licence": licence}
    with replacing(folder, kind) as building:
        entries = write_documents(building, train, **origin)
        held_out = write_documents(
            building,
            validation,
            **origin,
            validation=True,
            first=len(entries),
            shard_characters=sys.maxsize,
        )
        if not entries or not held_out:
            raise ValueError(
                f"{source}: needs at least one training document and one validation document"
            )
        return write_manifest(
            building, entries + held_out, kind=kind, **origin, **about, **(extra or {})
        )
