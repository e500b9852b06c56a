"""Fetching files so that what is there afterwards is whole: resumed, retried, checked, renamed.

    fetcher = Fetcher()                        # one for a whole job; fetcher.stop.set() ends it
    fetcher.fetch(source, path)                # an http(s) address, or a file of a local mirror
    fetcher.fetch(source, path, sha256=..., check=read_it)   # check raises ValueError: damaged
    fetcher.read(url)                          # the bytes of a small answer, such as a listing
    source_of("words.txt", url, mirror)        # which of the two a --mirror stands in for

A file grows as `NAME.partial` and gets its name only once its size, its SHA-256 (where one is
known or the hub announces it) and its own check have passed. Run again, a download goes on where it
stopped. Everything that cannot be had is a ValueError with the fix: no network, HF_HUB_OFFLINE, a
name that is not there, a file that comes damaged every time. `nanochat.dataset.hub` knows the hub's
addresses and its cache.
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

from nanochat.dataset.hub import authorization, offline
from nanochat.runtime.base_dir import expanded
from nanochat.runtime.files import sha256_file

# When a connection breaks, the block being read is lost: with 1 MiB slow lines never got on.
BLOCK_BYTES = 16 * 1024
CONNECT_TIMEOUT_S = 5.0  # connecting works at once or not at all
SHA256 = re.compile(r"[0-9a-f]{64}")
# What requests says of a network error -> the same for people.
NETWORK_ERRORS = {
    "timed out": "the server went silent",
    "incompleteread": "the connection ended early",
    "reset": "the connection was reset",
    "resol": "the server's name cannot be resolved",
    "refused": "the connection was refused",
    "unreachable": "the network is unreachable",
}
UNREACHABLE = ("resol", "refused", "unreachable")

Check = Callable[[Path], None]


class FetchStopped(Exception):
    """The caller asked for an end (Ctrl+C)."""


class _Again(Exception):
    """This attempt failed, another may not. wait_s: the pause the server asked for. unreachable: no
    server at all.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, unreachable: bool = False):
        super().__init__(reason)
        self.wait_s = wait_s
        self.unreachable = unreachable


@dataclass(kw_only=True)
class Fetcher:
    """How to download. Every method raises ValueError, with the fix, when a file cannot be had.

    attempts: tries in a row without a single new byte. attempts_unreachable: the same where there
    is no server at all, which waiting seldom mends. timeout_s: longest silence of a server. wait_s:
    first pause between tries, doubled each time up to wait_max_s. on_bytes: told of every block
    that arrives (from any thread).
    """

    attempts: int = 6
    attempts_unreachable: int = 3
    timeout_s: float = 30.0
    wait_s: float = 1.0
    wait_max_s: float = 60.0
    on_bytes: Callable[[int], None] = lambda count: None
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(
        self,
        source: str | Path,
        path: str | Path,
        *,
        sha256: str | None = None,
        check: Check | None = None,
    ) -> Path:
        """Bring source to path unless it is there. sha256: what it must be; check: raises
        ValueError on a bad file.
        """
        path = Path(path)
        if path.exists():
            return path
        if is_address(source):
            _refuse_offline(path.name, f"copy the file to {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        if is_address(source):
            url = str(source)
            self._persist(
                url,
                attempt=lambda: self._download(url, partial, sha256, check),
                received=lambda: _size(partial),
            )
        else:
            _copy(Path(source), partial, sha256, check)
        os.replace(partial, path)
        return path

    def read(self, url: str) -> bytes:
        """The whole answer to a request, kept in memory."""
        _refuse_offline(url, "run this on a machine with internet")
        answers: list[bytes] = []

        def attempt() -> None:
            with _request(url, self.timeout_s) as response:
                _announced_bytes(response, url, have=0)
                answers.append(_whole(response))

        self._persist(url, attempt=attempt, received=lambda: 0)
        return answers[-1]

    def _persist(
        self, url: str, *, attempt: Callable[[], None], received: Callable[[], int]
    ) -> None:
        """Attempt until it succeeds. Raises ValueError after too many tries without a new byte."""
        failures = 0
        while not self.stop.is_set():
            before = received()
            try:
                return attempt()
            except _Again as error:
                failures = failures + 1 if received() <= before else 1
                if failures >= (self.attempts_unreachable if error.unreachable else self.attempts):
                    raise ValueError(
                        f"{url}: {error}; run the command again to go on where it stopped"
                    ) from None
                pause = max(error.wait_s, min(self.wait_s * 2 ** (failures - 1), self.wait_max_s))
            self.stop.wait(pause)
        raise FetchStopped

    def _download(self, url: str, partial: Path, sha256: str | None, check: Check | None) -> None:
        """One request; on return `partial` is complete and checked."""
        have = _size(partial)
        with _request(url, self.timeout_s, first_byte=have) as response:
            sha256 = sha256 or _linked_sha256(response)
            total = _announced_bytes(response, url, have)
            if response.status_code != 416 and (total is None or have != total):
                # a server that ignores Range starts over
                self._receive(response, partial, mode="ab" if response.status_code == 206 else "wb")
        size = _size(partial)
        if total is not None and size < total:
            raise _Again(f"the connection ended after {size:,} of {total:,} bytes")
        try:
            if total is not None and size > total:
                raise ValueError(f"{size:,} bytes came, {total:,} were announced")
            _judge(partial, sha256, check)
        except ValueError as error:
            partial.unlink(missing_ok=True)  # nothing in it can be trusted: start at zero again
            raise _Again(str(error)) from None

    def _receive(self, response: Any, partial: Path, mode: str) -> None:
        with open(partial, mode) as file:
            for block in _blocks(response):
                file.write(block)
                self.on_bytes(len(block))
                if self.stop.is_set():
                    raise FetchStopped


def is_address(source: str | Path) -> bool:
    """Whether a source is fetched over the network, rather than copied."""
    return str(source).startswith(("http://", "https://"))


def mirror_problem(mirror: str) -> str:
    """What is wrong with a --mirror, or ""."""
    try:
        usable = is_address(mirror) or expanded(mirror).is_dir()
    except ValueError as error:
        return f"{mirror}: {error}"
    return "" if usable else f"{mirror}: no such folder, and not an http(s) address"


def source_of(name: str, url: str, mirror: str | None) -> str | Path:
    """Where `name` comes from: its own url, or the folder or address that has the same files."""
    if mirror is None:
        return url
    return f"{mirror.rstrip('/')}/{name}" if is_address(mirror) else expanded(mirror) / name


def _refuse_offline(name: str, fix: str) -> None:
    if offline():
        raise ValueError(f"{name}: not here, and HF_HUB_OFFLINE is set; unset it or {fix}")


def _copy(source: Path, partial: Path, sha256: str | None, check: Check | None) -> None:
    if not source.is_file():
        raise ValueError(f"{source}: not in the mirror folder")
    shutil.copyfile(source, partial)
    try:
        _judge(partial, sha256, check)
    except ValueError as error:
        partial.unlink(missing_ok=True)
        raise ValueError(f"{source}: {error}") from None


def _judge(path: Path, sha256: str | None, check: Check | None) -> None:
    if sha256 and sha256_file(path) != sha256:
        raise ValueError("its SHA-256 is wrong")
    if check is not None:
        check(path)


def _request(url: str, timeout_s: float, first_byte: int = 0) -> Any:
    import requests

    headers = {"Accept-Encoding": "identity", "User-Agent": "nanochat", **authorization()}
    if first_byte:
        headers["Range"] = f"bytes={first_byte}-"
    try:
        return requests.get(
            url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, timeout_s)
        )
    except requests.RequestException as error:
        raise _network_error(error) from None


def _blocks(response: Any) -> Any:
    import requests

    try:
        yield from response.iter_content(BLOCK_BYTES)
    except requests.RequestException as error:
        raise _network_error(error) from None


def _whole(response: Any) -> bytes:
    body = b"".join(_blocks(response))
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and len(body) != int(length):
        raise _Again(f"the connection ended after {len(body):,} of {int(length):,} bytes")
    return body


def _announced_bytes(response: Any, url: str, have: int) -> int | None:
    """Judge the answer's status. Returns the file's full size (bytes) when the server says it."""
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
    if status == 416 and have:  # nothing beyond what we have: complete, or of something else
        return int(content_range[2]) if content_range and content_range[2] != "*" else 0
    if status in (408, 425, 429) or status >= 500:
        after = response.headers.get("Retry-After", "")
        wait_s = min(float(after), 600.0) if after.isdigit() else 0.0
        raise _Again(f"the server answered {status}", wait_s)
    raise ValueError(f"{url}: {_refusal(status)}")


def _linked_sha256(response: Any) -> str | None:
    """The hub names a large file's SHA-256 in the ETag of the redirect to its storage."""
    for answer in [*response.history, response]:
        tag = answer.headers.get("X-Linked-Etag", "").strip('W/"')
        if SHA256.fullmatch(tag):
            return tag
    return None


def _refusal(status: int) -> str:
    if status == 404:
        return "not found (404); check the name, or HF_ENDPOINT / --mirror if you set one"
    if status in (401, 403):
        return f"refused ({status}); set HF_TOKEN to a token that may read it"
    return f"the server answered {status}; check HF_ENDPOINT / --mirror and the network"


def _network_error(error: Exception) -> _Again:
    """A network error in a few words."""
    import requests

    text = str(error).lower()
    mark = next((mark for mark in NETWORK_ERRORS if mark in text), "")
    if isinstance(error, (requests.ConnectTimeout, requests.exceptions.ProxyError)):
        return _Again("the server cannot be reached", unreachable=True)
    reason = NETWORK_ERRORS.get(mark, type(error).__name__)
    return _Again(reason, unreachable=mark in UNREACHABLE)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
