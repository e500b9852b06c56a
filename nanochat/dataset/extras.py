"""The small public files beside the shards: the CORE eval bundle, identity conversations, a word
list.

Each lands under the base directory whole or not at all. A mirror, folder or address, may stand in
for the originals.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nanochat.dataset.fetcher import Check, Fetcher, source_of
from nanochat.runtime.base_dir import base_dir

STORE = "https://karpathy-public.s3.us-west-2.amazonaws.com"
WORDS = "https://raw.githubusercontent.com/dwyl/english-words/refs/heads/master/words_alpha.txt"


def check_zip(path: Path) -> None:
    """Raises ValueError unless the archive is whole and holds the bundle, with no path leading out
    of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names, damaged = archive.namelist(), archive.testzip()
    except zipfile.BadZipFile:
        raise ValueError("not a zip archive") from None
    if damaged:
        raise ValueError(f"{damaged} in it is damaged")
    if "eval_bundle/core.yaml" not in names:
        raise ValueError("holds no eval_bundle/core.yaml")
    if any(name.startswith(("/", "\\")) or ".." in Path(name).parts for name in names):
        raise ValueError("holds a path that leads out of the archive")


def check_jsonl(path: Path) -> None:
    """Raises ValueError with the first line that is not JSON."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        try:
            if line.strip():
                json.loads(line)
        except (ValueError, RecursionError):  # bytes that are not UTF-8 are ValueErrors, too
            raise ValueError(f"line {number}: not JSON") from None


def check_words(path: Path) -> None:
    if len(path.read_text(encoding="utf-8", errors="replace").split()) < 1000:
        raise ValueError("fewer than 1,000 words")


@dataclass(frozen=True)
class Extra:
    """A file to have: where from, what it must be, and the path under the base directory that shows
    it is there.
    """

    url: str
    check: Check
    makes: str


EXTRAS = {
    "eval bundle": Extra(f"{STORE}/eval_bundle.zip", check_zip, "eval_bundle/core.yaml"),
    "identity conversations": Extra(
        f"{STORE}/identity_conversations.jsonl", check_jsonl, "identity_conversations.jsonl"
    ),
    "word list": Extra(WORDS, check_words, "words_alpha.txt"),
}


def fetch_extras(mirror: str | None = None, fetcher: Fetcher | None = None) -> list[Path]:
    """Bring every extra that is not there yet. mirror: folder or address with files of the same
    names.

    Goes on after a failure; raises one ValueError with all of them at the end.
    """
    base, failures, found = base_dir(), [], []
    for extra in EXTRAS.values():
        target = base / extra.makes
        try:
            if not target.exists():
                _bring(extra, base, mirror, fetcher or Fetcher())
            found.append(target)
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\n".join(failures))
    return found


def _bring(extra: Extra, base: Path, mirror: str | None, fetcher: Fetcher) -> None:
    name = extra.url.rsplit("/", 1)[1]
    path = fetcher.fetch(source_of(name, extra.url, mirror), base / name, check=extra.check)
    if path.suffix == ".zip":
        _unpack(path, base)
        path.unlink()


def _unpack(archive: Path, base: Path) -> None:
    """`eval_bundle/` out of the checked archive, in one step: what was there partly is replaced."""
    folder = Path(tempfile.mkdtemp(dir=base, prefix=".eval_bundle."))
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        shutil.rmtree(base / "eval_bundle", ignore_errors=True)
        os.replace(folder / "eval_bundle", base / "eval_bundle")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
