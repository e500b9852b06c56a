"""Files of a repository on the hub, of a folder, or beside an address: listed, and fetched whole.

A hub names the hash of every file it lists; what comes with another one is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from nanochat.dataset.fetcher import Fetcher, is_address
from nanochat.dataset.hub import cached_snapshots, hub_endpoint, offline
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.printable import printable

REPO = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
# What may stand beside a checkpoint that an address names; the numbers are those of its step.
BESIDE = (
    "{prefix}meta_{step}.json",
    "config.json",
    "tokenizer.pkl",
    "tokenizer.json",
    "tokenizer/tokenizer.pkl",
    "tokenizer/tokenizer.json",
)


class RepoFiles(Protocol):
    """Where a checkpoint comes from. `names`: paths with slashes, each below the place."""

    place: str
    version: str  # which state of the place this is, "" where that is not known
    names: list[str]

    def bring(self, name: str, path: Path) -> None:
        """Put the file `name` at `path`, whole. ValueError when it cannot be had."""


def open_repo(source: str, revision: str = "main") -> RepoFiles:
    """A folder, `owner/name[@revision]` or its page on the hub, or the address of one file.
    ValueError when there is no such place.
    """
    page = re.fullmatch(rf"{re.escape(hub_endpoint())}/(.+?)(?:/tree/([^/]+))?/?", source)
    if page and REPO.fullmatch(page[1]):
        return HubFiles(page[1], page[2] or revision)
    if is_address(source):
        return AddressFiles(source)
    folder = expanded(source)
    if folder.is_dir():
        return FolderFiles(folder)
    match = REPO.fullmatch(source)
    if match is None:
        raise ValueError(
            f"{source}: no such folder; name a folder, an address, or a repository of the hub as "
            "owner/name"
        )
    repo, named = match[1], match[2] or revision
    if offline():
        found = cached_snapshots(repo, kind="models")
        if not found:
            raise ValueError(
                f"{repo}: not in the hub's cache, and HF_HUB_OFFLINE is set; unset it, or fetch it "
                "on a machine with internet and copy the folder here"
            )
        return FolderFiles(found[0])
    return HubFiles(repo, named)


def safe_names(names: list[str], place: str) -> list[str]:
    """`names`, all of them below the place. ValueError for one that leads out of it."""
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise ValueError(f"{place}: refused, it lists a file outside itself: {printable(name)}")
    return names


@dataclass
class FolderFiles:
    """A folder of this machine."""

    folder: Path
    place: str = ""
    version: str = ""
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = str(self.folder)
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        self.names = sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def bring(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / name, path)


class HubFiles:
    """A model repository of the hub, at one commit of it."""

    def __init__(self, repo: str, revision: str, fetcher: Fetcher | None = None) -> None:
        self.fetcher = fetcher or Fetcher()
        self.place = repo
        url = f"{hub_endpoint()}/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            listing = json.loads(self.fetcher.read(url))
            self.entries = {str(entry["rfilename"]): entry for entry in listing["siblings"]}
            self.version = str(listing.get("sha") or revision)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{url}: no listing of a repository ({error})") from None
        self.names = safe_names(sorted(self.entries), repo)

    def bring(self, name: str, path: Path) -> None:
        entry = self.entries[name]
        large = entry.get("lfs") or {}
        url = f"{hub_endpoint()}/{self.place}/resolve/{quote(self.version)}/{quote(name)}"
        sha256 = large.get("sha256") or large.get("oid")
        check = None if sha256 else blob_check(entry.get("blobId"))
        self.fetcher.fetch(url, path, sha256=sha256, check=check)


def blob_check(blob_id: Any) -> Callable[[Path], None] | None:
    """Checks a small file by the number that git gives it; None where the hub names none."""
    if not isinstance(blob_id, str):
        return None

    def check(path: Path) -> None:
        data = path.read_bytes()
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if digest != blob_id:
            raise ValueError("its hash is not the one that the hub lists")

    return check


class AddressFiles:
    """The address of a checkpoint's model file, and what stands beside it there."""

    def __init__(self, url: str, fetcher: Fetcher | None = None) -> None:
        self.fetcher = fetcher or Fetcher(attempts=3)
        self.root, _, name = url.partition("?")[0].rpartition("/")
        self.place = url
        self.version = ""
        match = re.fullmatch(r"(\w*?)model_(\d+)\.pt", name)
        if match is None and not name.endswith(".safetensors"):
            raise ValueError(
                f"{url}: name a model file such as .../model_000650.pt or .../model.safetensors"
            )
        step = match[2] if match else ""
        prefix = match[1] if match else ""
        beside = [text.format(prefix=prefix, step=step) for text in BESIDE]
        self.names = [name, *(text for text in beside if self._is_there(text))]

    def _is_there(self, name: str) -> bool:
        try:
            self.fetcher.read(f"{self.root}/{quote(name)}")
        except ValueError as error:
            if "404" in str(error):
                return False
            raise
        return True

    def bring(self, name: str, path: Path) -> None:
        self.fetcher.fetch(f"{self.root}/{quote(name)}", path)
