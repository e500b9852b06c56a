"""Earlier results, moved out of the way of new ones: into dated folders, on the disk they are on,
never deleted.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

FOLDER = "previous"
ELSEWHERE = (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)  # a rename can't go there


def stamp() -> str:
    """The name of a dated folder."""
    return time.strftime("%Y%m%d-%H%M%S")


def set_aside(
    place: Path, base: Path, when: str | None = None, only: Collection[str] | None = None
) -> Path | None:
    """Move a file, or what a folder holds (`only`: these names in it), into a dated folder; returns
    that, or None where there is nothing to move.

    It is `<base>/previous/<when>/`, with the place's path below `base`. What lies on another disk
    stays on that one, in a folder `previous` beside the place, or inside of it where it is a disk
    of its own. A folder that is a link or a disk stays, empty.
    """
    folder = place.is_dir()
    names = [place.name] if not folder else sorted(item.name for item in place.iterdir())
    names = [name for name in names if name != FOLDER and (only is None or name in only)]
    if not names or not os.path.lexists(place):
        return None
    source = place if folder else place.parent
    for target in _targets(place, base, when or stamp()):
        try:
            _rename(source, names, target)
        except OSError as error:
            if error.errno not in ELSEWHERE or target.exists():  # half of it has moved
                raise
            continue
        if folder and not place.is_symlink() and not any(place.iterdir()):
            _remove_empty(place)
        return target if folder else target / place.name
    raise ValueError(
        f"{place}: cannot be moved into a dated folder beside it; move it away by hand, or use "
        "another name"
    )


def sizes(folder: Path) -> tuple[int, int]:
    """(files, bytes) below a folder."""
    found = [item for item in folder.rglob("*") if item.is_file()]
    return len(found), sum(item.stat().st_size for item in found)


def _targets(place: Path, base: Path, when: str) -> Iterator[Path]:
    """Dated folders for the place, in order of preference; they do not exist yet."""
    absolute, root = Path(os.path.abspath(place)), Path(os.path.abspath(base))
    below = Path(place.name)
    if absolute.is_relative_to(root):
        below = absolute.relative_to(root)
    if place.is_dir():
        real = place.resolve()
        yield _unused(root / FOLDER, when, below)
        yield _unused(real.parent / FOLDER, when, Path(real.name))
        yield _unused(real / FOLDER, when, Path())
    else:
        yield _unused(root / FOLDER, when, below).parent
        yield _unused(place.parent.resolve() / FOLDER, when, Path(place.name)).parent


def _unused(root: Path, when: str, below: Path) -> Path:
    """`<root>/<when>/<below>`, with a number after the date where that is taken."""
    number, found = 1, root / when / below
    while os.path.lexists(found):
        number += 1
        found = root / f"{when}-{number}" / below
    return found


def _rename(source: Path, names: Sequence[str], target: Path) -> None:
    """Move entries of a folder to another one on the same disk; where the first cannot go, none
    is moved.
    """
    made = [target, *target.parents]
    made = [folder for folder in made if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        try:
            os.rename(source / name, target / name)
        except OSError:
            if number == 0:
                for folder in made:
                    _remove_empty(folder)
            raise


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # something else is in it, or it is a disk
        folder.rmdir()
