"""Before a run on several processes: can they all reach each other, and how fast? Names the slow or
missing rank.

A rank that never comes would otherwise show as a hang in the first step's collective, ten minutes
long and nameless.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from nanochat.runtime.world import World

SIZE_BYTES = {"cpu": 4 * 2**20, "cuda": 64 * 2**20}
REPEATS = 3
SLOW = 0.5  # of the median: slower is worth a warning


@dataclass
class Link:
    """What one rank measured with its neighbour to the right."""

    rank: int
    host: str
    gb_per_s: float


def preflight(world: World, timeout_s: float = 120.0) -> list[Link]:
    """Measure every rank's bandwidth, print it once and warn of slow ranks. [] for a single
    process.

    Raises ValueError on every rank that is there, naming those that are not, after `timeout_s`.
    """
    if world.world_size == 1:
        return []
    missing = absent_ranks(world, timeout_s)
    if missing:
        raise ValueError(
            f"rank(s) {', '.join(map(str, missing))} of {world.world_size} did not answer within "
            f"{timeout_s:.0f} s; "
            "look at their logs and at the network between the nodes, then start again"
        )
    together = all_reduce_speed(world)
    found = world.gather_objects((socket.gethostname(), neighbour_speed(world)))
    links = [Link(rank, host, speed) for rank, (host, speed) in enumerate(found)]
    if world.is_main:
        report(links, together)
    return links


def absent_ranks(world: World, timeout_s: float) -> list[int]:
    """Ranks that do not sign in at the rendezvous in time. Uses its key-value store: no collective
    that could hang.
    """
    store = dist.distributed_c10d._get_default_store()
    store.set(f"preflight/{world.rank}", socket.gethostname())
    deadline, missing = time.monotonic() + timeout_s, []
    for rank in range(world.world_size):
        try:
            store.wait(
                [f"preflight/{rank}"], timedelta(seconds=max(0.1, deadline - time.monotonic()))
            )
        except (RuntimeError, ValueError):  # DistStoreError is a RuntimeError
            missing.append(rank)
    return missing


def all_reduce_speed(world: World) -> float:
    """GB/s that every rank sends while all add up a tensor together."""
    tensor = torch.ones(
        SIZE_BYTES.get(world.device.type, SIZE_BYTES["cpu"]) // 4, device=world.device
    )
    best = float("inf")
    for _ in range(REPEATS):
        best = min(best, timed(world, lambda: world.all_reduce_sum(tensor)))
    sent = 2 * (world.world_size - 1) / world.world_size * tensor.numel() * 4
    return sent / best / 1e9


def neighbour_speed(world: World) -> float:
    """GB/s that this rank sends when it alone sends, to the next rank: a slow one is not hidden by
    the others.
    """
    tensor = torch.ones(
        SIZE_BYTES.get(world.device.type, SIZE_BYTES["cpu"]) // 4, device=world.device
    )
    mine = float("inf")
    for sender in range(world.world_size):
        receiver = (sender + 1) % world.world_size
        for _ in range(REPEATS):
            seconds = timed(world, lambda s=sender, r=receiver: pass_on(world, tensor, s, r))  # type: ignore[misc]
            if world.rank == sender:
                mine = min(mine, seconds)
    return tensor.numel() * 4 / mine / 1e9


def pass_on(world: World, tensor: torch.Tensor, sender: int, receiver: int) -> None:
    """Send there and an acknowledgement back, so that the sender's time holds the whole way."""
    note = tensor[:1].clone()
    if world.rank == sender:
        dist.send(tensor, receiver)
        dist.recv(note, receiver)
    elif world.rank == receiver:
        dist.recv(tensor, sender)
        dist.send(note, sender)


def timed(world: World, function: Callable[[], object]) -> float:
    """Seconds of `function`, begun by all ranks together."""
    world.barrier()
    started = time.perf_counter()
    function()
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    return time.perf_counter() - started


def report(links: list[Link], together: float) -> None:
    """One line for all, and a warning that names each rank far below the median."""
    speeds = sorted(link.gb_per_s for link in links)
    middle = speeds[len(speeds) // 2]
    each = ", ".join(f"{link.rank}: {link.gb_per_s:.2f}" for link in links)
    print(
        f"preflight: all-reduce {together:.2f} GB/s a rank; to the next rank, GB/s: {each}",
        flush=True,
    )
    for link in slow_links(links):
        print(
            f"WARNING: rank {link.rank} on {link.host} sends {link.gb_per_s:.2f} GB/s, the "
            f"median is {middle:.2f}; "
            "every step waits for it: look at its network card, its cable and what else runs there",
            file=sys.stderr,
            flush=True,
        )


def slow_links(links: list[Link]) -> list[Link]:
    """Ranks below half the median bandwidth; of two ranks neither can be told from the other."""
    speeds = sorted(link.gb_per_s for link in links)
    return [
        link for link in links if len(links) > 2 and link.gb_per_s < SLOW * speeds[len(speeds) // 2]
    ]
