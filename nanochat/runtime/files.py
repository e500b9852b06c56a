"""Files written so that a crash leaves no half, one process at a time, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file or nothing: a temporary file beside it, flushed to disk, then renamed.
    Makes parents.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(
            temporary, 0o666 & ~_umask()
        )  # mkstemp makes private files; these are ordinary ones
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time fills `folder`; the others wait (ranks of one run, a command started
    twice).

    The lock is a file beside the folder. Its holder removes it, so one that waited may find itself
    with a removed file while others lock the next one of that name: it looks whether its file still
    has the name, and else starts again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    path, held = folder.parent / f".{folder.name}.lock", False
    while not held:
        with open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                held = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except OSError as error:
                if error.errno not in (
                    errno.ENOENT,
                    errno.ESTALE,
                ):  # what a network disk says of a removed file
                    raise
            if held:
                try:
                    yield
                finally:
                    path.unlink(
                        missing_ok=True
                    )  # before the lock is given up: afterwards it may be another's


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
