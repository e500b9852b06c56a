"""Whether data files are still what they were, without reading hundreds of gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WHOLE_BYTES = 64 * 2**20
BLOCK_BYTES = 2**20
N_BLOCKS = 32


def file_digests(paths: Sequence[Path]) -> dict[str, str]:
    """Name of each file -> 16 hexadecimal digits, others whenever it has changed.

    Files of up to 64 MiB are read whole. Of larger ones the size counts and 32 evenly spaced MiB,
    first and last among them: the last holds a parquet file's table of contents, with the size and
    the place of everything in it.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:  # hashing runs beside other threads
        return dict(zip((path.name for path in paths), pool.map(file_digest, paths), strict=True))


def file_digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        else:
            for number in range(N_BLOCKS):
                file.seek((size - BLOCK_BYTES) * number // (N_BLOCKS - 1))
                digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
