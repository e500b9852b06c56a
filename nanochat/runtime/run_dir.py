"""Where artefacts live, how files are written so that a crash leaves no half, and what made
them."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]  # the checkout, when there is one


def expanded(place: str | os.PathLike[str]) -> Path:
    """The path with `~` replaced by the home directory. Raises ValueError where there is none."""
    path = Path(place)
    if not str(path).startswith("~"):
        return path
    home = os.path.expanduser(path.parts[0])
    if home.startswith("~") or (home == "/" and not os.environ.get("HOME", "/")):
        raise ValueError(
            f"there is no home directory for {path.parts[0]}; write the whole path, or "
            f"./{path.parts[0]} for a name that begins so"
        )
    return Path(home, *path.parts[1:])


def base_dir() -> Path:
    """Root of every artefact: `$NANOCHAT_BASE_DIR`, else `~/.cache/nanochat`. Made when first asked
    for.

    Raises ValueError when the place cannot be made.
    """
    named = os.environ.get("NANOCHAT_BASE_DIR")
    try:
        path = expanded(named or "~/.cache/nanochat")
    except ValueError as error:
        if named:
            raise ValueError(f"NANOCHAT_BASE_DIR={named}: {error}") from None
        raise ValueError(
            "NANOCHAT_BASE_DIR: is not set, and you have no home directory; name a folder, for "
            "example NANOCHAT_BASE_DIR=/tmp/nanochat"
        ) from None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"NANOCHAT_BASE_DIR={path}: cannot be made ({error.strerror}); name a folder you can "
            "write"
        ) from None
    return path


def check_writable(folder: Path, fix: str = "name another place") -> None:
    """Find out before hours of work whether `folder`, or what will hold it, can be written.

    Raises ValueError with the folder, the reason and `fix`. Leaves nothing behind.
    """
    if folder.is_symlink() and not folder.exists():
        raise ValueError(
            f"{folder}: is a link to {os.readlink(folder)}, which is not there; make that folder"
        )
    place = nearest_existing(folder)
    try:  # permissions do not tell of all file systems
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({place}: {error.strerror}); {fix}"
        ) from None


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


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


def _git(*args: str) -> str | None:
    """Output of a git command about this checkout; None outside one or without git."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version() -> str:
    try:
        return metadata.version("nanochat")
    except metadata.PackageNotFoundError:
        return "unknown"


def code_version() -> str:
    """`git describe` of the checkout (`-dirty` when changed), else the package version."""
    return _git("describe", "--always", "--dirty", "--tags") or package_version()


def environment() -> dict[str, Any]:
    """What a report says about the machine and the code: versions, processor, memory (bytes), GPUs,
    git state.
    """
    import torch

    dirty = _git("status", "--porcelain")
    return {
        "platform": platform.platform(),
        "hostname": platform.node(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "nanochat": package_version(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git_dirty": None if dirty is None else bool(dirty),
        "cpu": cpu_model(),
        "cores": core_count(),
        "memory_bytes": memory_bytes(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "gpu_memory_bytes": [
            torch.cuda.get_device_properties(i).total_memory
            for i in range(torch.cuda.device_count())
        ],
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def core_count() -> int:
    """Cores this process may use (its affinity mask, where the system has one)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Physical memory of the machine, or the container's limit when that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return min(total, int(limit)) if limit != "max" else total
    except (OSError, ValueError):
        return total
