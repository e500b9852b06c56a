"""The Hugging Face hub: its addresses, whether it may be asked, and what its cache already holds.

The one place that reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN, HF_HOME, HF_HUB_CACHE and
XDG_CACHE_HOME, as the hub's own library does.
"""

from __future__ import annotations

import os
from pathlib import Path

from nanochat.runtime.base_dir import expanded


def hub_endpoint() -> str:
    """The hub, or the mirror that HF_ENDPOINT names, without a slash at the end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_url(repo: str, name: str, revision: str = "main") -> str:
    """Address of a file of a hub data set: hub_url("openai/gsm8k",
    "main/test-00000-of-00001.parquet").
    """
    return f"{hub_endpoint()}/datasets/{repo}/resolve/{revision}/{name}"


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def authorization() -> dict[str, str]:
    """The header that HF_TOKEN asks for; requests drops it when a redirect leads elsewhere."""
    token = os.environ.get("HF_TOKEN", "")
    return {"Authorization": f"Bearer {token}"} if token else {}


def hub_cache() -> Path:
    """The folder of everything that any tool has fetched from the hub on this machine."""
    if place := os.environ.get("HF_HUB_CACHE"):
        return _expanded(place)
    if home := os.environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def cached_repo(repo: str, kind: str = "datasets") -> Path:
    """Where the cache keeps a data set (or one of the `models`), whether it is there or not."""
    return hub_cache() / f"{kind}--{repo.replace('/', '--')}"


def cached_snapshots(repo: str, kind: str = "datasets") -> list[Path]:
    """Folders of a cached repository, the revision that `main` points at first, then the newest."""
    folder = cached_repo(repo, kind)
    if not (folder / "snapshots").is_dir():
        return []
    main = folder / "refs" / "main"
    revision = main.read_text().strip() if main.is_file() else ""
    found = [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
    return sorted(found, key=lambda path: (path.name != revision, -path.stat().st_mtime))


def cached_file(repo: str, name: str) -> Path | None:
    """A file of a cached data set, or None when no snapshot has it."""
    paths = (snapshot / name for snapshot in cached_snapshots(repo))
    return next((path for path in paths if path.is_file()), None)


def _expanded(place: str) -> Path:
    try:
        return expanded(place)
    except ValueError:  # without a home directory there is no cache of that name either
        return Path(place)
