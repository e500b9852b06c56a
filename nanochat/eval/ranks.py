"""Work dealt out to the ranks: each takes `items[rank::world_size]`, all get the results of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanochat.runtime.world import World


def gather_in_order(world: World, own: Sequence[Any], count: int) -> list[Any]:
    """The results of all `count` items, in their order, from every rank's own."""
    parts = world.gather_objects(own)
    return [parts[i % len(parts)][i // len(parts)] for i in range(count)]
