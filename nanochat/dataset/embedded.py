"""The embedded world as a pretraining data set: made on this machine, the same for everybody, no
download.

`documents(seed)` gives English documents without end; `write_shards` turns them into the shard
format. Everything comes from the tables and templates of `nanochat.dataset.embedded_world`, under
the project's own licence.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nanochat.dataset import shards
from nanochat.dataset.embedded_world import dialogues, entries, numbers, spelling, stories

Maker = Callable[[random.Random], str]

# Share of each kind of document, by characters.
SHARES = {
    "facts": 0.38,
    "stories": 0.13,
    "numbers": 0.12,
    "spelling": 0.23,
    "copying": 0.06,
    "dialogues": 0.10,
}
KINDS: dict[str, dict[Maker, float]] = {
    "facts": entries.KINDS,
    "stories": {stories.story: 1.0},
    "numbers": numbers.KINDS,
    "spelling": spelling.KINDS,
    "copying": spelling.COPY_KINDS,
    "dialogues": dialogues.KINDS,
}


def _weights() -> tuple[list[Maker], list[float]]:
    """Makers and how often to call each, so that characters come in their shares.

    The mean length of each maker's documents is measured on a small sample with a fixed seed.
    """
    makers, weights = [], []
    for kind, members in KINDS.items():
        total = sum(members.values())
        for maker, share in members.items():
            rng = random.Random(f"length:{maker.__name__}")
            mean = sum(len(maker(rng)) for _ in range(50)) / 50
            makers.append(maker)
            weights.append(SHARES[kind] * share / total / mean)
    return makers, weights


def documents(seed: int = 0) -> Iterator[str]:
    """Documents without end, the same ones for the same seed."""
    makers, weights = _weights()
    rng = random.Random(f"embedded:{seed}")
    cumulative = list(itertools.accumulate(weights))
    while True:
        for maker in rng.choices(makers, cum_weights=cumulative, k=256):
            yield maker(rng)


def take(source: Iterator[str], characters: int) -> Iterator[str]:
    """Documents of `source` until they have at least so many characters together."""
    taken = 0
    while taken < characters:
        text = next(source)
        taken += len(text)
        yield text


def write_shards(
    out_dir: str | Path, target_characters: int = 20_000_000, seed: int = 0
) -> dict[str, Any]:
    """Write the embedded world into `out_dir`, the last shard being validation; returns the
    manifest.

    target_characters: of training text; validation gets one part in forty more, from another seed.
    ValueError for a target below 100,000 (too little to train anything on) or a folder with
    downloaded shards.
    """
    if target_characters < 100_000:
        raise ValueError(
            f"target_characters: {target_characters} is too little to train on; use 100000 or more"
        )
    return shards.write_shards(
        out_dir,
        train=take(documents(seed), target_characters),
        validation=take(documents(seed + 1_000_003), max(target_characters // 40, 50_000)),
        kind="embedded",
        source="the embedded world",
        licence="MIT",
        seed=seed,
    )
