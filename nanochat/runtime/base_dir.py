"""The folder of all artefacts, and whether a place can be written to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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
