"""Where the rows of a public data set come from: a local folder, the Hugging Face cache, or the hub
itself.

Local folders are `$NANOCHAT_DATA_DIR/<folder>`, then `<base>/task_data/<folder>`, with one JSONL
file per split (`gsm8k/train.jsonl`) or parquet files in the hub's own layouts. Downloads go to
`<base>/task_data`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.runtime.run_dir import base_dir

HOW_TO_GET = "`bash scripts/download_after_basetraining.sh` on a machine with internet"


class DataNotFound(ValueError):
    """A data set that is nowhere to be found; the message says where it was looked for and how to
    get it.
    """


@dataclass(frozen=True)
class DataSet:
    """A data set and its names: `folder` (of JSONL files) on a disk, `hub` and `config` on the hub.

    `splits`: our split -> the hub's. `files`: our split -> file stems to try in the folder, where
    they differ from it.
    """

    title: str
    folder: str
    hub: str
    config: str
    splits: dict[str, str]
    files: dict[str, tuple[str, ...]]
    also: tuple[str, ...] = ()

    def stems(self, split: str) -> tuple[str, ...]:
        return self.files.get(split, (split,))


def _named(*splits: str) -> dict[str, str]:
    return {split: split for split in splits}


_ARC_SPLITS = _named("train", "validation", "test")
_ARC_FILES: dict[str, tuple[str, ...]] = {"validation": ("validation", "dev")}
DATA_SETS = {
    "gsm8k": DataSet("GSM8K", "gsm8k", "openai/gsm8k", "main", _named("train", "test"), {}),
    "humaneval": DataSet(
        "HumanEval",
        "humaneval",
        "openai/openai_humaneval",
        "openai_humaneval",
        _named("test"),
        {"test": ("HumanEval", "test")},
    ),
    "mmlu": DataSet(
        "MMLU",
        "mmlu",
        "cais/mmlu",
        "all",
        _named("test", "validation", "dev"),
        {"validation": ("validation", "val")},
    ),
    "mmlu-auxiliary": DataSet(
        "MMLU auxiliary_train",
        "mmlu",
        "cais/mmlu",
        "auxiliary_train",
        _named("train"),
        {"train": ("auxiliary_train",)},
    ),
    "arc-easy": DataSet(
        "ARC-Easy", "arc/ARC-Easy", "allenai/ai2_arc", "ARC-Easy", _ARC_SPLITS, _ARC_FILES
    ),
    "arc-challenge": DataSet(
        "ARC-Challenge",
        "arc/ARC-Challenge",
        "allenai/ai2_arc",
        "ARC-Challenge",
        _ARC_SPLITS,
        _ARC_FILES,
    ),
    "smoltalk": DataSet(
        "SmolTalk",
        "smoltalk",
        "HuggingFaceTB/smol-smoltalk",
        "default",
        _named("train", "test"),
        {"test": ("test", "val")},
        also=("chat",),
    ),
}


class Rows(Sequence[dict[str, Any]]):
    """Rows of a data set by index, decoded when asked for. `origin` is the file or folder they were
    read from.
    """

    def __init__(
        self, origin: Path, lines: list[tuple[str, bytes]] | None = None, table: Any = None
    ) -> None:
        self.origin, self._lines, self._table = origin, lines, table

    def __len__(self) -> int:
        return len(self._lines) if self._lines is not None else int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.origin} has {len(self)} rows, so there is no row {index}")
        index %= len(self)
        if self._lines is None:
            return self._table.slice(index, 1).to_pylist()[0]
        place, line = self._lines[index]
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: not JSON ({error}); fetch the file again") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: not a JSON object; fetch the file again")
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self)):
            yield self[index]


def load_rows(name: str, split: str) -> Rows:
    """Rows of one split from the first place that has them, downloading where that is allowed.

    Raises ValueError for an unknown name or split, DataNotFound (a ValueError) when no place has
    the rows.
    """
    data_set = known(name, split)
    places = search_places(data_set, split)
    for place in places:
        if files := find_files(place, data_set, split):
            return read_files(files)
    reason = "HF_HUB_OFFLINE is set"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"):
        from nanochat.tasks.download import DownloadFailed, download_split

        try:
            return read_files(download_split(data_set, split))
        except DownloadFailed as error:
            reason = str(error)
    looked = ", ".join(str(place) for place in places)
    raise DataNotFound(
        f"{data_set.title} {split} not found (looked in {looked}; no download: {reason}); to get "
        f"it, run {HOW_TO_GET}"
    )


def known(name: str, split: str) -> DataSet:
    if name not in DATA_SETS:
        raise ValueError(f"data set: {name!r} is unknown; use one of {', '.join(DATA_SETS)}")
    data_set = DATA_SETS[name]
    if split not in data_set.splits:
        raise ValueError(
            f"split: {data_set.title} has no {split!r}; use one of {', '.join(data_set.splits)}"
        )
    return data_set


def download_dir(data_set: DataSet) -> Path:
    return base_dir() / "task_data" / data_set.folder


def search_places(data_set: DataSet, split: str) -> list[Path]:
    """Folders in the order in which they are looked through."""
    folders = [data_set.folder, *data_set.also]
    roots = [base_dir() / "task_data"]
    if os.environ.get("NANOCHAT_DATA_DIR"):
        roots.insert(0, Path(os.environ["NANOCHAT_DATA_DIR"]).expanduser())
    places = [root / folder for root in roots for folder in folders]
    cached = hub_cache() / f"datasets--{data_set.hub.replace('/', '--')}"
    return [*places, *_snapshots(cached)] if cached.is_dir() else [*places, cached]


def hub_cache() -> Path:
    """The hub's cache folder, found as the hub's own library finds it."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HOME") or default).expanduser() / "hub"


def _snapshots(cached: Path) -> list[Path]:
    """Snapshots of a cached data set, the one `main` points at first, then the newest."""
    snapshots = [path for path in (cached / "snapshots").glob("*") if path.is_dir()]
    main = cached / "refs" / "main"
    revision = main.read_text().strip() if main.is_file() else ""
    return sorted(snapshots, key=lambda path: (path.name != revision, -path.stat().st_mtime)) or [
        cached
    ]


def find_files(place: Path, data_set: DataSet, split: str) -> list[Path]:
    """The files that make up a split under `place`, in order; empty when they are not all there."""
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


def read_files(files: list[Path]) -> Rows:
    """Rows of JSONL or parquet files. ValueError naming the file that cannot be read."""
    origin = files[0] if len(files) == 1 else files[0].parent
    if files[0].suffix == ".jsonl":
        lines = []
        for path in files:
            with open(path, "rb") as file:
                lines += [
                    (f"{path}:{n}", line) for n, line in enumerate(file, start=1) if line.strip()
                ]
        return Rows(origin, lines=lines)
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in files:
        try:
            tables.append(pq.read_table(path))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{path}: not a readable parquet file ({error}); delete it and fetch it again"
            ) from None
    return Rows(origin, table=pa.concat_tables(tables, promote_options="default").combine_chunks())
