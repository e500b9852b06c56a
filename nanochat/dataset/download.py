"""Fetching files over HTTP so that what is there afterwards is whole: resumed, retried, checked,
then renamed.

A file grows as `NAME.partial` and gets its name only once its size, its checksum (where one is
known) and its own check have passed. Run again, a download goes on where it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.runtime.run_dir import sha256_file

BLOCK_BYTES = (
    16 * 1024
)  # when a connection breaks, the block being read is lost: with 1 MiB slow lines never got on
UNREACHABLE = (
    "the server's name cannot be resolved",
    "the connection was refused",
    "the network is unreachable",
)
SHA256 = re.compile(r"[0-9a-f]{64}")


class FetchStopped(Exception):
    """The caller asked for an end (Ctrl+C)."""


class _Again(Exception):
    """This attempt failed, another may not. wait_s: the pause the server asked for. unreachable: no
    server at all.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, unreachable: bool = False):
        super().__init__(reason)
        self.wait_s = wait_s
        self.cost = (
            2 if unreachable else 1
        )  # no network is seldom mended by waiting: half the attempts


@dataclass
class Fetcher:
    """How to download: `fetch(url, path)` raises ValueError, with the fix, when a file cannot be
    had.

    attempts: tries in a row without a single new byte. timeout_s: longest silence of a server.
    wait_s: first pause between tries, doubled each time up to wait_max_s. on_bytes: told of every
    block that arrives (from any thread).
    """

    attempts: int = 6
    timeout_s: float = 30.0
    wait_s: float = 1.0
    wait_max_s: float = 60.0
    on_bytes: Callable[[int], None] = lambda count: None
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(
        self,
        url: str,
        path: str | Path,
        *,
        sha256: str | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> Path:
        """Download url to path unless it is there. sha256: what it must be; check: raises
        ValueError on a bad file.
        """
        path = Path(path)
        if path.exists():
            return path
        if offline():
            raise ValueError(
                f"{path.name}: not here, and HF_HUB_OFFLINE is set; unset it or copy the file to "
                f"{path}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        failures = 0
        while not self.stop.is_set():
            before = _size(partial)
            try:
                self._attempt(url, partial, sha256, check)
                os.replace(partial, path)
                return path
            except _Again as error:
                failures = failures + error.cost if _size(partial) <= before else 1
                if failures >= self.attempts:
                    raise ValueError(
                        f"{url}: {error}; run the command again to go on where it stopped"
                    ) from None
                pause = max(error.wait_s, min(self.wait_s * 2 ** (failures - 1), self.wait_max_s))
            self.stop.wait(pause)
        raise FetchStopped

    def _attempt(
        self, url: str, partial: Path, sha256: str | None, check: Callable[[Path], None] | None
    ) -> None:
        """One request; on return `partial` is complete and checked."""
        import requests

        have = _size(partial)
        headers = {"Accept-Encoding": "identity", "User-Agent": "nanochat", **_authorization()}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.get(
                url, headers=headers, stream=True, timeout=(10, self.timeout_s)
            ) as response:
                sha256 = sha256 or _linked_sha256(response)
                total = self._begin(response, url, have)
                if total is None or have != total:
                    self._receive(response, partial, append=response.status_code == 206)
        except requests.RequestException as error:
            reason = _plain(error)
            raise _Again(reason, unreachable=reason in UNREACHABLE) from None
        self._finish(url, partial, total, sha256, check)

    def _begin(self, response: Any, url: str, have: int) -> int | None:
        """Judge the answer's status. Returns the file's full size (bytes) when the server says
        it."""
        status = response.status_code
        content_range = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
        )
        if status == 206:
            if content_range is None or int(content_range[1] or -1) != have:
                raise _Again("the server sent another part than the one asked for")
            return int(content_range[2]) if content_range[2] != "*" else None
        if status == 200:
            length = response.headers.get("Content-Length")
            return int(length) if length else None
        if (
            status == 416 and have
        ):  # nothing beyond what we have: complete, or a leftover of something else
            return int(content_range[2]) if content_range and content_range[2] != "*" else 0
        if status in (408, 425, 429) or status >= 500:
            raise _Again(f"the server answered {status}", _retry_after(response))
        raise ValueError(f"{url}: {_refusal(status)}")

    def _receive(self, response: Any, partial: Path, append: bool) -> None:
        if response.status_code == 416:
            return
        with open(
            partial, "ab" if append else "wb"
        ) as file:  # a server that ignores Range starts over
            for block in response.iter_content(BLOCK_BYTES):
                file.write(block)
                self.on_bytes(len(block))
                if self.stop.is_set():
                    raise FetchStopped

    def _finish(
        self,
        url: str,
        partial: Path,
        total: int | None,
        sha256: str | None,
        check: Callable[[Path], None] | None,
    ) -> None:
        size = _size(partial)
        if total is not None and size < total:
            raise _Again(f"the connection ended after {size:,} of {total:,} bytes")
        problem = (
            f"{size:,} bytes came, {total:,} were announced"
            if total is not None and size > total
            else ""
        )
        if not problem and sha256 and sha256_file(partial) != sha256:
            problem = "its SHA-256 is wrong"
        if not problem and check is not None:
            try:
                check(partial)
            except ValueError as error:
                problem = str(error)
        if problem:
            partial.unlink(
                missing_ok=True
            )  # nothing in it can be trusted: the next attempt starts at zero
            raise _Again(problem)


def copy_file(
    source: Path,
    path: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """The same promise for a file of a local mirror. Raises ValueError when it is absent or
    damaged.
    """
    if path.exists():
        return path
    if not source.is_file():
        raise ValueError(f"{source}: not in the mirror folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    shutil.copyfile(source, partial)
    try:
        if sha256 and sha256_file(partial) != sha256:
            raise ValueError(f"{source}: its SHA-256 is wrong")
        if check is not None:
            check(partial)
    except ValueError:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    return path


def hub_endpoint() -> str:
    """The Hugging Face hub, or the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_url(repo: str, name: str, revision: str = "main") -> str:
    """Address of a file of a hub data set: hub_url("openai/gsm8k",
    "main/test-00000-of-00001.parquet").
    """
    return f"{hub_endpoint()}/datasets/{repo}/resolve/{revision}/{name}"


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def _authorization() -> dict[str, str]:
    # requests drops this header when a redirect leads to another host
    token = os.environ.get("HF_TOKEN", "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _linked_sha256(response: Any) -> str | None:
    """The hub names a large file's SHA-256 in the ETag of the redirect to its storage."""
    for answer in [*response.history, response]:
        tag = answer.headers.get("X-Linked-Etag", "").strip('W/"')
        if SHA256.fullmatch(tag):
            return tag
    return None


def _retry_after(response: Any) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), 600.0) if value.isdigit() else 0.0


def _refusal(status: int) -> str:
    if status == 404:
        return "not found (404); check the name, or HF_ENDPOINT / --mirror if you set one"
    if status in (401, 403):
        return f"refused ({status}); set HF_TOKEN to a token that may read it"
    return f"the server answered {status}; check HF_ENDPOINT / --mirror and the network"


def _plain(error: Exception) -> str:
    """A network error in a few words."""
    text = str(error).lower()
    for mark, words in {
        "timed out": "the server went silent",
        "incompleteread": "the connection ended early",
        "reset": "the connection was reset",
        "resolve": UNREACHABLE[0],
        "resolution": UNREACHABLE[0],
        "refused": UNREACHABLE[1],
        "unreachable": UNREACHABLE[2],
    }.items():
        if mark in text:
            return words
    return type(error).__name__


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
