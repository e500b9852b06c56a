"""Which text files there are below a place, and what is there besides them and is not read."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.dataset.file_kinds import special_kind, what_it_is

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
KINDS = ", ".join(SUFFIXES)
SHOWN = 5


OTHER_KINDS = f"files of other kinds than {KINDS}"
HIDDEN = "hidden files and folders"
AGAIN = "links to what is read already"
BROKEN = "broken links"
SPECIAL = "pipes, sockets and devices"
CLOSED = "folders that cannot be opened"


@dataclass(kw_only=True)
class TextFiles:
    """The files to read, in a fixed order. left_out: why -> names, relative to the source."""

    source: Path
    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, path: Path, why: str) -> None:
        self.left_out.setdefault(why, []).append(path.relative_to(self.source).as_posix())

    def notes(self) -> list[str]:
        """One line for each reason why something is not read."""
        return [
            f"not read: {len(names):,} {why} ({_some(names, why == OTHER_KINDS)})"
            for why, names in sorted(self.left_out.items())
        ]


def _some(names: list[str], kinds: bool) -> str:
    """A few of the names, or how many there are of each kind."""
    if kinds:
        counts = Counter(Path(name).suffix.lower() or "no suffix" for name in names)
        return ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(10))
    return ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def find_files(source: Path, exclude: Path | None = None) -> TextFiles:
    """The file itself, or every supported file below a folder; folders behind links are folders.

    exclude: a folder that is passed over (where the shards go). Raises ValueError when there is
    nothing to read.
    """
    if not source.exists():
        raise ValueError(
            f"--data={source}: no such file or folder; give a folder or a {KINDS} file"
        )
    if special := special_kind(source):
        raise ValueError(f"--data={source}: {special}; write its text into a .txt or .jsonl file")
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            kind = what_it_is(source) or "rename or convert it"
            raise ValueError(f"--data={source}: not a {KINDS} file; {kind}")
        return TextFiles(source=source, files=[source])
    found = TextFiles(source=source)
    passed_over = _identity(exclude.stat()) if exclude is not None and exclude.exists() else None
    seen = {_identity(source.stat())}
    folders = [source]
    while folders:
        for path, status in _entries(folders.pop(), found):
            if _identity(status) == passed_over:
                continue
            if status.st_ino and _identity(status) in seen:
                found.leave_out(path, AGAIN)
                continue
            seen.add(_identity(status))
            (folders if stat.S_ISDIR(status.st_mode) else found.files).append(path)
    if not found.files:
        notes = "".join(f"; {note}" for note in found.notes())
        raise ValueError(
            f"--data={source}: no {KINDS} files in it; put your text there or name another "
            f"folder{notes}"
        )
    found.files.sort(key=lambda path: path.relative_to(source).as_posix())
    return found


def _entries(folder: Path, found: TextFiles) -> Iterator[tuple[Path, os.stat_result]]:
    """The folders and text files in a folder; the rest is left out."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return found.leave_out(folder, CLOSED)
    for path in (folder / name for name in names):
        if path.name.startswith("."):
            found.leave_out(path, HIDDEN)
            continue
        try:
            status = path.stat()
        except OSError:
            found.leave_out(path, BROKEN)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield path, status
        elif not stat.S_ISREG(status.st_mode):
            found.leave_out(path, SPECIAL)
        elif path.suffix.lower() not in SUFFIXES:
            found.leave_out(path, OTHER_KINDS)
        else:
            yield path, status


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
