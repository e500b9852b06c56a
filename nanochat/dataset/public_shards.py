"""The public shard sets: which there are, and fetching N shards of one in parallel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.dataset.fetcher import Fetcher, FetchStopped, is_address, source_of
from nanochat.dataset.hub import cached_file, hub_url
from nanochat.dataset.shards import (
    list_shards,
    measure_shard,
    read_manifest,
    shard_entry,
    shard_name,
    write_manifest,
)
from nanochat.runtime.files import locked
from nanochat.runtime.progress import Progress

KIND = "hub"


@dataclass(frozen=True)
class ShardSet:
    """A public data set in our shard format: shard_00000.parquet ... of a hub repository, the last
    is validation.
    """

    repo: str
    shards: int
    licence: str


SETS = {
    "fineweb-edu": ShardSet("karpathy/fineweb-edu-100b-shuffle", 1823, "ODC-By 1.0"),
    "climbmix": ShardSet("karpathy/climbmix-400b-shuffle", 6543, "see the data set's page"),
}


def wanted_shards(shard_set: ShardSet, count: int) -> list[str]:
    """Names of the validation shard and of the first `count` training shards (-1: all), in the
    order to fetch them.
    """
    last = shard_set.shards - 1
    train = last if count < 0 else min(count, last)
    return [shard_name(i) for i in [last, *range(train)]]


def download_shards(
    shard_set: ShardSet,
    count: int,
    out_dir: str | Path,
    *,
    workers: int = 4,
    mirror: str | None = None,
    fetcher: Fetcher | None = None,
) -> list[Path]:
    """Bring the shards into out_dir, each complete and checked; returns their paths.

    mirror: a folder or an address that has the same files. Shards that are there and whole are left
    alone. Raises ValueError when out_dir holds other data, and at the end when any shard is
    missing, with the reason for each.
    """
    out_dir = Path(out_dir)
    names = wanted_shards(shard_set, count)
    with locked(out_dir):
        entries = _known_entries(out_dir, shard_set)
        out_dir.mkdir(parents=True, exist_ok=True)
        job = _Job(shard_set, out_dir, mirror, fetcher or Fetcher(), entries)
        try:
            failures = _run(job, names, workers)
        finally:
            kept = [e for e in list(job.entries.values()) if (out_dir / e["name"]).exists()]
            about = {"kind": KIND, "source": shard_set.repo, "licence": shard_set.licence}
            # Without its last shard the folder would silently validate on training text.
            state = {} if (out_dir / names[0]).exists() else {"unfinished": True}
            write_manifest(out_dir, kept, **about, **state)
    if failures:
        more = [f"... and {len(failures) - 5} more"] if len(failures) > 5 else []
        shown = "\n".join([*failures[:5], *more])
        raise ValueError(f"{len(failures)} of {len(names)} shards are missing:\n{shown}")
    return [out_dir / name for name in sorted(names)]


class _Job:
    """What the workers share: where shards come from, and the manifest entries of those that are
    done.
    """

    def __init__(
        self,
        shard_set: ShardSet,
        out_dir: Path,
        mirror: str | None,
        fetcher: Fetcher,
        entries: dict[str, dict[str, Any]],
    ):
        self.shard_set = shard_set
        self.out_dir = out_dir
        self.mirror = mirror
        self.fetcher = fetcher
        self.entries = entries
        local = mirror is not None and not is_address(mirror)
        listed = read_manifest(mirror).get("shards", []) if mirror and local else []
        self.mirror_hashes = {entry["name"]: entry["sha256"] for entry in listed}
        self.bytes = 0
        self._lock = threading.Lock()
        fetcher.on_bytes = self._count

    def get(self, name: str) -> None:
        """Bring one shard. Raises ValueError, OSError or FetchStopped."""
        path = self.out_dir / name
        known = self.entries.get(name)
        if path.exists() and known and path.stat().st_size == known["bytes"]:
            return
        measured: list[tuple[int, int]] = []

        def check(shard: Path) -> None:
            measured.append(measure_shard(shard))

        if path.exists():
            try:
                if known:
                    raise ValueError("its size is not the manifest's")
                check(path)
            except ValueError:
                path.unlink()  # cut or damaged: fetch it again
        if not path.exists():
            sha256 = self.mirror_hashes.get(name)
            self.fetcher.fetch(self._source(name), path, sha256=sha256, check=check)
        split = "validation" if name == shard_name(self.shard_set.shards - 1) else "train"
        self.entries[name] = shard_entry(
            path, *measured[-1], source=self.shard_set.repo, licence=self.shard_set.licence
        ) | {"split": split}

    def _source(self, name: str) -> str | Path:
        cached = None if self.mirror else cached_file(self.shard_set.repo, name)
        return cached or source_of(name, hub_url(self.shard_set.repo, name), self.mirror)

    def _count(self, size: int) -> None:
        with self._lock:
            self.bytes += size


def _run(job: _Job, names: list[str], workers: int) -> list[str]:
    """Work through the names; returns `name: reason` for those that failed."""
    results: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
    todo = iter(names)
    lock = threading.Lock()
    for _ in range(min(workers, len(names))):
        # Daemons, not a pool: Ctrl+C must not wait for a connection that has gone silent.
        threading.Thread(target=_work, args=(job, todo, lock, results), daemon=True).start()
    failures: dict[str, str] = {}
    with Progress(len(names), "shards") as progress:
        finished = 0
        while finished < len(names):
            try:
                name, error = results.get(timeout=0.5)
            except queue.Empty:
                progress.advance(0, MB=job.bytes / 1e6)
                continue
            except BaseException:
                job.fetcher.stop.set()
                raise
            finished += 1
            if error is not None:
                stopped = isinstance(error, FetchStopped)
                told = str(error).removeprefix(f"{name}: ")
                reason = "not tried, as none of the others came" if stopped else told
                failures[name] = f"{name}: {reason}"
            progress.advance(1, MB=job.bytes / 1e6, failed=len(failures))
            if len(failures) == finished >= 2 * workers:
                job.fetcher.stop.set()  # nothing works: do not go through hundreds of shards
    return [failures[name] for name in sorted(failures)]


def _work(job: _Job, todo: Iterator[str], lock: threading.Lock, results: queue.SimpleQueue) -> None:
    """One worker: take names until there are none; every name gets exactly one result."""
    while True:
        with lock:
            name = next(todo, None)
        if name is None:
            return
        try:
            job.get(name)
            results.put((name, None))
        except Exception as error:  # reported with the shard's name, whatever it is
            results.put((name, error))


def _known_entries(out_dir: Path, shard_set: ShardSet) -> dict[str, dict[str, Any]]:
    """Manifest entries of earlier downloads into out_dir. Raises ValueError when it holds something
    else.
    """
    manifest = read_manifest(out_dir)
    same = manifest.get("kind") == KIND and manifest.get("source") == shard_set.repo
    if manifest and not same and list_shards(out_dir):
        raise ValueError(
            f"{out_dir} holds {manifest.get('source')}, not {shard_set.repo}: move it away, or set "
            "NANOCHAT_BASE_DIR to another folder"
        )
    return {entry["name"]: entry for entry in manifest.get("shards", [])} if same else {}
