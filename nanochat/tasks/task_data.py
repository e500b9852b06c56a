"""Where the rows of a data set are: a local folder, the hub's cache, or the hub itself.

Local folders are `$NANOCHAT_DATA_DIR/<folder>`, then `<base>/task_data/<folder>`, with one JSONL
file per split (`gsm8k/train.jsonl`) or parquet files in the hub's own layouts. Downloads go to
`<base>/task_data`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from nanochat.dataset.fetcher import Fetcher
from nanochat.dataset.hub import cached_repo, cached_snapshots, hub_endpoint, offline
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import locked
from nanochat.runtime.progress import Progress
from nanochat.runtime.suggest import suggestion
from nanochat.tasks.catalogue import DATA_SETS, DataSet
from nanochat.tasks.rows import Rows, read_parquet, read_rows

HOW_TO_GET = "`bash scripts/download_after_basetraining.sh` on a machine with internet"


class DataNotFound(ValueError):
    """A data set that is nowhere to be found; the message says where it was looked for and how to
    get it.
    """


def load_rows(name: str, split: str) -> Rows:
    """Rows of one split from the first place that has them, downloading where that is allowed.

    Raises ValueError for an unknown name or split, DataNotFound (a ValueError) when no place has
    the rows.
    """
    data_set = known(name, split)
    if files := local_files(data_set, split):
        return read_rows(files)
    reason = "HF_HUB_OFFLINE is set"
    if not offline():
        try:
            return read_rows(fetch_split(data_set, split, Fetcher(attempts=4)))
        except ValueError as error:
            reason = str(error)
    looked = ", ".join(str(place) for place in search_places(data_set))
    raise DataNotFound(
        f"{data_set.title} {split} not found (looked in {looked}; no download: {reason}); to get "
        f"it, run {HOW_TO_GET}"
    )


def known(name: str, split: str | None = None) -> DataSet:
    """The data set of that name. ValueError where there is none, or no such split of it."""
    if name not in DATA_SETS:
        raise ValueError(f"data set: {name!r} is unknown{suggestion(name, DATA_SETS)}")
    data_set = DATA_SETS[name]
    if split is not None and split not in data_set.splits:
        near = suggestion(split, data_set.splits)
        raise ValueError(f"split: {data_set.title} has no {split!r}{near}")
    return data_set


def local_files(data_set: DataSet, split: str) -> list[Path]:
    """The split's files in the first place that has it; none when no place does."""
    found = (find_files(place, data_set, split) for place in search_places(data_set))
    return next(filter(None, found), [])


def search_places(data_set: DataSet) -> list[Path]:
    """Folders in the order in which they are looked through."""
    roots = [base_dir() / "task_data"]
    if os.environ.get("NANOCHAT_DATA_DIR"):
        roots.insert(0, expanded(os.environ["NANOCHAT_DATA_DIR"]))
    places = [root / folder for root in roots for folder in (data_set.folder, *data_set.also)]
    return [*places, *(cached_snapshots(data_set.hub) or [cached_repo(data_set.hub)])]


def find_files(place: Path, data_set: DataSet, split: str) -> list[Path]:
    """The files of a split in one folder, in order; empty when they are not all there."""
    if not place.is_dir():
        return []
    for stem in data_set.stems(split):
        for candidate in (place / f"{stem}.jsonl", place / f"{stem}.parquet"):
            if candidate.is_file():
                return [candidate]
    hub_split = data_set.splits[split]
    for folder in (data_set.config, "data", "."):
        here = place / folder
        if (here / hub_split).is_dir():  # the hub's converted layout: config/split/0000.parquet
            files = sorted((here / hub_split).glob("*.parquet"))
        else:  # the layout of most repositories: config/split-00000-of-00004.parquet
            pattern = re.compile(rf"{re.escape(hub_split)}(-\d+-of-\d+)?\.(parquet|jsonl)")
            files = sorted(
                path for path in here.glob(f"{hub_split}*") if pattern.fullmatch(path.name)
            )
        if files and _complete(files):
            return files
    return []


def _complete(files: list[Path]) -> bool:
    """Whether all shards are there, as far as the names say how many there are."""
    of = re.search(r"-of-(\d+)", files[0].name)
    return of is None or len(files) == int(of.group(1))


def fetch_split(data_set: DataSet, split: str, fetcher: Fetcher) -> list[Path]:
    """Bring the parquet files of one split into `<base>/task_data` -> their paths, in order.
    ValueError when one cannot be had; what came whole is kept for the next try.
    """
    place = base_dir() / "task_data" / data_set.folder
    hub_split = data_set.splits[split]
    folder = place / data_set.config / hub_split
    with locked(folder):
        if have := find_files(place, data_set, split):  # another rank was here first
            return have
        listing = f"{hub_endpoint()}/api/datasets/{data_set.hub}/parquet/{data_set.config}"
        urls = _listed(fetcher, f"{listing}/{hub_split}")
        about = f"{data_set.title} {split} ({len(urls)} files)"
        print(f"downloading {about} to {folder}", file=sys.stderr)
        partial = folder.with_name(f".{hub_split}.part")
        for number, url in enumerate(urls):
            fetcher.fetch(url, partial / f"{number:04d}.parquet", check=read_parquet)
        os.replace(partial, folder)  # the folder appears with all of its files or not at all
        return sorted(folder.glob("*.parquet"))


def _listed(fetcher: Fetcher, listing: str) -> list[str]:
    """The addresses of a split's files. The listing names the hub's own host; a mirror serves the
    same paths.
    """
    try:
        urls = json.loads(fetcher.read(listing))
        paths = [urlsplit(url).path for url in urls]
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError):
        paths = []
    if not paths:
        raise ValueError(f"{listing}: lists no parquet files; check HF_ENDPOINT")
    return [hub_endpoint() + path for path in paths]


def fetch_task_data(names: Sequence[str] = tuple(DATA_SETS)) -> dict[str, list[Path]]:
    """Fetch every split of the named data sets that is not on this machine yet.

    Returns "name/split" -> files. Goes on after a failure and raises one ValueError listing all of
    them at the end.
    """
    jobs = [(name, split) for name in names for split in known(name).splits]
    fetched: dict[str, list[Path]] = {}
    failures = []
    fetcher = Fetcher(attempts=4)
    with Progress(len(jobs), "task data", every_s=0.0) as progress:
        for name, split in jobs:
            data_set = known(name, split)
            title = f"{data_set.title} {split}"
            try:
                fetched[f"{name}/{split}"] = local_files(data_set, split) or fetch_split(
                    data_set, split, fetcher
                )
            except ValueError as error:
                failures.append(f"{title}: {error}")
            progress.advance(split=title)
    if failures:
        told = "\n  ".join(failures)
        raise ValueError(f"task data: could not be fetched, run the same command again:\n  {told}")
    return fetched
