"""`python -m nanochat.dataset`: fill the folder of text shards from the hub, from your own text, or
offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from nanochat.config import Short, parse
from nanochat.dataset.fetcher import mirror_problem
from nanochat.dataset.text_encoding import encoding_problem
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.entry import run_as_command


@dataclass
class DatasetConfig:
    """Text shards for pretraining: -n (public shards), --data (your own text) or --embedded (made
    here, offline).
    """

    num_files: Annotated[int | None, Short("-n")] = None
    """Public shards to download, besides the validation shard; -1 means all."""
    dataset: Literal["fineweb-edu", "climbmix"] = "fineweb-edu"
    """Which public set."""
    workers: Annotated[int, Short("-w")] = 4
    """Downloads at the same time."""
    mirror: str | None = None
    """Folder or address that has the same shard files (HF_ENDPOINT works too)."""
    data: Path | None = None
    """Your own text: a .txt, .md, .jsonl or .parquet file, or a folder of them."""
    encoding: str | None = None
    """Encoding of your text files that are not UTF-8 (default: found out and told); utf-8 reads
    damaged ones, with U+FFFD for what is damaged.
    """
    licence: str = "not stated"
    """Licence of your own text, for the manifest."""
    embedded: bool = False
    """Make the embedded world's text; needs no network."""
    characters: int = 20_000_000
    """Size of the embedded world's training text."""
    verify: bool = False
    """Read every shard that is there and compare checksums."""
    out: Path | None = None
    """Folder for the shards (default: base_data under NANOCHAT_BASE_DIR)."""

    def problems(self) -> list[str]:
        """Settings that contradict each other."""
        found = []
        chosen = [self.num_files is not None, self.data is not None, self.embedded, self.verify]
        if sum(chosen) != 1:
            found.append("give exactly one of -n N, --data DIR_OR_FILE, --embedded, --verify")
        if self.num_files is not None and (self.num_files == 0 or self.num_files < -1):
            found.append(f"-n {self.num_files}: must be at least 1, or -1 for all shards")
        if not 1 <= self.workers <= 64:
            found.append(f"--workers {self.workers}: must be between 1 and 64")
        if self.mirror is not None and (problem := mirror_problem(self.mirror)):
            found.append(f"--mirror {problem}")
        if self.encoding and (problem := encoding_problem(self.encoding)):
            found.append(f"--encoding={problem}")
        if self.embedded and self.characters < 100_000:
            found.append(f"--characters {self.characters}: must be at least 100000")
        return found


def run(config: DatasetConfig) -> str:
    """Do what the config asks for; returns the line to print. Raises ValueError for what people can
    put right.
    """
    from nanochat.dataset.text_source import describe

    out = config.out or base_dir() / "base_data"
    if config.verify:
        return _verified(out)
    if config.data is not None:
        from nanochat.dataset.own_text import import_text

        return import_text(
            config.data, out, licence=config.licence, encoding=config.encoding
        ).summary()
    if config.embedded:
        from nanochat.dataset.embedded import write_shards

        write_shards(out, config.characters)
        return describe(out)
    from nanochat.dataset.public_shards import SETS, download_shards

    assert config.num_files is not None
    download_shards(
        SETS[config.dataset], config.num_files, out, workers=config.workers, mirror=config.mirror
    )
    return describe(out)


def _verified(folder: Path) -> str:
    from nanochat.dataset.shards import shard_paths, verify_shards
    from nanochat.dataset.text_source import describe

    problems = verify_shards(folder)
    if problems:
        raise ValueError("\n".join(problems))
    shard_paths(folder)
    return f"{describe(folder)}: all whole"


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m nanochat.dataset`; the same command goes on where it was stopped."""
    run_as_command(lambda: run(parse(DatasetConfig, argv, prog="python -m nanochat.dataset")))


if __name__ == "__main__":
    main()
