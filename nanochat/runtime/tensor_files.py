"""Files of tensors that are whole or not there, with their SHA-256."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nanochat.runtime.errors import reason
from nanochat.runtime.files import sha256_file


class _Hashing:
    """A file that hashes what passes through it, so that a gigabyte is not read back for its
    checksum.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.n_bytes = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.n_bytes += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_tensors(path: Path, state: Any) -> dict[str, Any]:
    """torch.save under a temporary name, flushed to disk, then renamed -> {"sha256", "bytes"} of
    the file.

    Raises OSError when the disk is full; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            hashing = _Hashing(file)
            torch.save(state, hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except RuntimeError as error:  # how torch wraps a failed write
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return {"sha256": hashing.digest.hexdigest(), "bytes": hashing.n_bytes}


def sync_directory(directory: Path) -> None:
    """Flush a folder's entries, so that a rename outlives a power cut. Does nothing where folders
    cannot be opened.
    """
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems refuse; the rename itself still stands
        pass
    finally:
        os.close(handle)


def read_tensors(path: Path, facts: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """The state in `path` on `device`, checked against `facts[path.name]["sha256"]` where that is
    given.

    Raises ValueError naming the file when it is missing, damaged or not a checkpoint.
    """
    fix = "use another --step, or delete this one's files"
    if not path.is_file():
        raise ValueError(f"{path}: missing; {fix}")
    if path.name in facts and sha256_file(path) != facts[path.name]["sha256"]:
        raise ValueError(
            f"{path}: damaged (its SHA-256 is not the one recorded when it was saved); {fix}"
        )
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        raise ValueError(f"{path}: not a readable checkpoint ({reason(error)}); {fix}") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__} instead of named tensors; {fix}")
    return state
