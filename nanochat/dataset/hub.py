"""The public shard sets: which there are, and fetching N shards of one in parallel."""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.dataset.download import Fetcher, FetchStopped, copy_file, hub_url
from nanochat.dataset.shards import (
    list_shards,
    measure_shard,
    read_manifest,
    shard_name,
    write_manifest,
)
from nanochat.runtime.progress import Progress
from nanochat.runtime.run_dir import locked, sha256_file

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
            kept = [
                entry for entry in list(job.entries.values()) if (out_dir / entry["name"]).exists()
            ]
            about = {"kind": KIND, "source": shard_set.repo, "licence": shard_set.licence}
            # Without its last shard the folder would silently validate on training text.
            state = {} if (out_dir / names[0]).exists() else {"unfinished": True}
            write_manifest(out_dir, kept, **about, **state)
    if failures:
        shown = "\n".join(
            failures[:5] + ([f"... and {len(failures) - 5} more"] if len(failures) > 5 else [])
        )
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
        entries: dict,
    ):
        self.shard_set = shard_set
        self.out_dir = out_dir
        self.fetcher = fetcher
        self.entries: dict[str, dict[str, Any]] = entries
        self.is_address = mirror is not None and mirror.startswith(("http://", "https://"))
        self.mirror = mirror
        listed = (
            [] if mirror is None or self.is_address else read_manifest(mirror).get("shards", [])
        )
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
        if path.exists() and not _whole(path, known):
            path.unlink()  # cut or damaged: fetch it again
        measured: dict[str, int] = {}

        def check(partial: Path) -> None:
            measured["rows"], measured["characters"] = measure_shard(partial)

        if not path.exists():
            self._bring(name, path, check)
        if not measured:
            check(path)
        about = {"source": self.shard_set.repo, "licence": self.shard_set.licence}
        split = "validation" if name == shard_name(self.shard_set.shards - 1) else "train"
        entry = {
            "name": name,
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
            **measured,
            **about,
        }
        self.entries[name] = {**entry, "split": split}

    def _bring(self, name: str, path: Path, check: Any) -> None:
        cached = hub_cache_file(self.shard_set.repo, name)
        if self.mirror is not None and not self.is_address:
            copy_file(
                Path(self.mirror).expanduser() / name,
                path,
                sha256=self.mirror_hashes.get(name),
                check=check,
            )
        elif self.mirror is None and cached is not None:
            copy_file(cached, path, check=check)
        else:
            url = (
                f"{self.mirror.rstrip('/')}/{name}"
                if self.mirror
                else hub_url(self.shard_set.repo, name)
            )
            self.fetcher.fetch(url, path, check=check)

    def _count(self, size: int) -> None:
        with self._lock:
            self.bytes += size


def _run(job: _Job, names: list[str], workers: int) -> list[str]:
    """Work through the names; returns `name: reason` for those that failed."""
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
    for name in names:
        todo.put(name)
    for _ in range(min(workers, len(names))):
        # Daemons, not a pool: Ctrl+C must not wait for a connection that has gone silent.
        threading.Thread(target=_work, args=(job, todo, results), daemon=True).start()
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
                reason = (
                    "not tried, as none of the others came"
                    if isinstance(error, FetchStopped)
                    else error
                )
                failures[name] = f"{name}: {reason}"
            progress.advance(1, MB=job.bytes / 1e6, failed=len(failures))
            if (
                len(failures) == finished >= 2 * workers
            ):  # nothing works: do not go through hundreds of shards
                job.fetcher.stop.set()
    return [failures[name] for name in sorted(failures)]


def _work(job: _Job, todo: queue.SimpleQueue, results: queue.SimpleQueue) -> None:
    """One worker: take names until there are none; every name gets exactly one result."""
    while True:
        try:
            name = todo.get_nowait()
        except queue.Empty:
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
    other = bool(manifest) and (
        manifest.get("kind") != KIND or manifest.get("source") != shard_set.repo
    )
    if other and list_shards(out_dir):
        raise ValueError(
            f"{out_dir} holds {manifest.get('source')}, not {shard_set.repo}: delete it, or set "
            "NANOCHAT_BASE_DIR to "
            "another folder"
        )
    return {} if other else {entry["name"]: entry for entry in manifest.get("shards", [])}


def _whole(path: Path, known: dict[str, Any] | None) -> bool:
    if known and path.stat().st_size != known["bytes"]:
        return False
    try:
        measure_shard(path)
    except ValueError:
        return False
    return True


def hub_cache_file(repo: str, name: str) -> Path | None:
    """The file in the hub's own cache (HF_HOME), if some other tool has fetched it."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    root = os.environ.get("HF_HUB_CACHE") or f"{home}/hub"
    snapshots = Path(root).expanduser() / f"datasets--{repo.replace('/', '--')}" / "snapshots"
    return next(iter(sorted(snapshots.glob(f"*/{name}"))), None) if snapshots.is_dir() else None
