"""Fetching task data from the hub into `<base>/task_data`: each file whole or not at all, checked,
retried.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nanochat.runtime.progress import Progress
from nanochat.runtime.run_dir import locked
from nanochat.tasks.rows import DATA_SETS, DataSet, download_dir, find_files, known, search_places

DEFAULT_ENDPOINT = "https://huggingface.co"
# Connecting either works at once or not at all (a compute node without internet); a slow answer is
# worth waiting for.
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
ATTEMPTS = 4


class DownloadFailed(Exception):
    """Why a split could not be fetched, in words for people."""


def download_task_data(names: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """Fetch every split of the named data sets (default: all) that is not on this machine yet.

    Returns "name/split" -> files. Goes on after a failure and raises one ValueError listing all of
    them at the end.
    """
    wanted = list(names or DATA_SETS)
    for name in wanted:
        if name not in DATA_SETS:
            raise ValueError(f"data set: {name!r} is unknown; use one of {', '.join(DATA_SETS)}")
    jobs = [(name, split) for name in wanted for split in DATA_SETS[name].splits]
    fetched: dict[str, list[Path]] = {}
    failures = []
    with Progress(len(jobs), "task data", every_s=0.0) as progress:
        for name, split in jobs:
            data_set = known(name, split)
            have = next(
                (
                    f
                    for p in search_places(data_set, split)
                    if (f := find_files(p, data_set, split))
                ),
                None,
            )
            try:
                fetched[f"{name}/{split}"] = have or download_split(data_set, split)
            except DownloadFailed as error:
                failures.append(f"{data_set.title} {split}: {error}")
            progress.advance(split=f"{data_set.title} {split}")
    if failures:
        raise ValueError(
            "task data: could not be fetched, run the same command again:\n  "
            + "\n  ".join(failures)
        )
    return fetched


def download_split(data_set: DataSet, split: str) -> list[Path]:
    """Fetch the parquet files of one split -> their paths, in order. Raises DownloadFailed."""
    import requests

    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    hub_split = data_set.splits[split]
    folder = download_dir(data_set) / data_set.config / hub_split
    with locked(folder), requests.Session() as session:
        if have := find_files(
            download_dir(data_set), data_set, split
        ):  # another rank was here first
            return have
        listing = f"{endpoint}/api/datasets/{data_set.hub}/parquet/{data_set.config}/{hub_split}"
        urls = _get(session, listing).json()
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise DownloadFailed(f"{listing} lists no parquet files")
        print(
            f"downloading {data_set.title} {split} ({len(urls)} files) to {folder}", file=sys.stderr
        )
        partial = folder.with_name(f".{hub_split}.part")
        partial.mkdir(exist_ok=True)
        for number, url in enumerate(urls):
            # The listing names the hub's own host; a mirror serves the same paths.
            _fetch(session, endpoint + urlsplit(url).path, partial / f"{number:04d}.parquet")
        os.replace(partial, folder)  # the folder appears with all of its files or not at all
        return [folder / f"{number:04d}.parquet" for number in range(len(urls))]


def _get(session: Any, url: str) -> Any:
    """A response with status 200. Busy servers are asked again; absent and unreachable ones are
    not.
    """
    import requests

    problem = ""
    for attempt in range(ATTEMPTS):
        try:
            response = session.get(url, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), stream=True)
            if response.status_code == 200:
                return response
            problem = f"{url} answered {response.status_code}"
            if response.status_code < 500 and response.status_code != 429:
                break
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError) as error:
            raise DownloadFailed(f"{url} cannot be reached ({type(error).__name__})") from None
        except requests.exceptions.RequestException as error:
            problem = f"{url}: {type(error).__name__}"
            if _unreachable(error):
                break
        time.sleep(0.2 * 4**attempt if attempt < ATTEMPTS - 1 else 0)
    raise DownloadFailed(problem)


def _unreachable(error: Exception) -> bool:
    return any(
        word in str(error)
        for word in ("NameResolution", "Name or service", "refused", "unreachable")
    )


def _fetch(session: Any, url: str, path: Path) -> None:
    """`url` into `path`, whole and readable as parquet, or DownloadFailed. A file from an earlier
    attempt is kept.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import requests

    problem = ""
    for _ in range(ATTEMPTS):
        try:
            if not path.is_file():
                with _get(session, url) as response, open(path, "wb") as file:
                    for block in response.iter_content(1 << 20):
                        file.write(block)
            pq.read_metadata(path)
            return
        except (OSError, pa.ArrowException, requests.exceptions.RequestException) as error:
            size = path.stat().st_size if path.is_file() else 0
            problem = f"{url}: cut off or damaged after {size} bytes ({type(error).__name__})"
            path.unlink(missing_ok=True)
    raise DownloadFailed(problem)
