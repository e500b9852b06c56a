"""Preflight: the bandwidth of every rank, the slow one by name, the missing one by number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from nanochat.runtime.preflight import Link, preflight, report, slow_links
from nanochat.runtime.world import World

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, time
from nanochat.runtime import preflight as p
from nanochat.runtime.world import init_world
world = init_world("cpu")
links = p.preflight(world)
assert [link.rank for link in links] == [0, 1, 2], links
assert all(link.gb_per_s > 0 for link in links), links
send = p.pass_on
def late(world, tensor, sender, receiver):
    if world.rank == sender == 1:
        time.sleep(0.2)
    send(world, tensor, sender, receiver)
p.pass_on = late
slow = p.slow_links(p.preflight(world))
assert 1 in [link.rank for link in slow], slow
world.barrier()
if world.rank == 2:  # alive, but it never signs in
    time.sleep(3)
    sys.exit(0)
from torch.distributed import distributed_c10d as c10d
store = c10d._get_default_store()
prefixed = c10d.PrefixStore("again", store)
c10d._get_default_store = lambda: prefixed
try:
    p.preflight(world, timeout_s=1.5)
except ValueError as error:
    print(f"rank {world.rank} says: {error}\\n", end="", flush=True)
time.sleep(2)
"""


def test_three_processes_and_a_slow_and_a_missing_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=3",
        str(program),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("preflight: all-reduce") == 2 and "WARNING: rank 1 on" in done.stderr
    for rank in (0, 1):
        assert f"rank {rank} says: rank(s) 2 of 3 did not answer within 2 s" in done.stdout


def test_one_process_needs_none(capsys):
    assert preflight(World(0, 0, 1, torch.device("cpu"))) == [] and capsys.readouterr().out == ""


def test_slow_ranks_are_named(capsys):
    links = [Link(rank, f"node{rank}", speed) for rank, speed in enumerate((10.0, 9.0, 11.0, 2.0))]
    assert [link.rank for link in slow_links(links)] == [3] and slow_links(links[2:]) == []
    report(links, 8.0)
    said = capsys.readouterr()
    assert (
        "0: 10.00, 1: 9.00, 2: 11.00, 3: 2.00" in said.out
        and "WARNING: rank 3 on node3 sends 2.00 GB/s" in said.err
    )
