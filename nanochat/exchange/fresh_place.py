"""A file or folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_place(target: Path, replace: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target` at the end of the block, and is removed if that
    raises. ValueError when `target` is there already, unless `replace`.
    """
    if taken(target) and not replace:
        raise ValueError(f"{target}: is there already; name another place or add --replace")
    growing = target.with_name(f".{target.name}.partial")
    remove(growing)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield growing
        remove(target)
        os.replace(growing, target)
    finally:
        remove(growing)


def taken(target: Path) -> bool:
    """Whether something is there that should not be lost: anything but an empty folder."""
    return any(target.iterdir()) if target.is_dir() else target.exists()


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
