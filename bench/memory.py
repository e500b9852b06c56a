"""Peak memory of one d12 training step on a CPU: whole logits, chunked cross-entropy, and activation checkpointing too.

`python -m bench.memory [--rows 8] [--depth 12]` runs each way in its own process and prints measured and planned peaks.
The step is forward, backward and the optimizer's first update, which makes its states.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from nanochat.cost import GIB, memory
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups, published_settings
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.objective import loss_sum_and_count
from nanochat.train.scaling import shape_for_depth

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("naive", "chunked", "checkpointed")


def model_config(args: argparse.Namespace) -> GPTConfig:
    shape = shape_for_depth(args.depth)
    return GPTConfig(
        args.seq_len, args.vocab_size, args.depth, shape.n_head, shape.n_head, shape.n_embd, "L", args.generation
    )


def step(args: argparse.Namespace) -> None:
    """One training step in this process; prints peak resident bytes and seconds."""
    model = GPT(model_config(args))
    model.init_weights(0)
    model.compute_dtype = pick_dtype("cpu")
    model.activation_checkpointing = args.way == "checkpointed"
    world = World(0, 0, 1, torch.device("cpu"))
    optimizer = Optimizer(parameter_groups(model, published_settings(args.generation)), world)
    ids = torch.randint(0, args.vocab_size, (args.rows, args.seq_len + 1))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(args.rows, args.seq_len))
    started = time.perf_counter()
    if args.way == "naive":
        total = F.cross_entropy(model(batch.input_ids).flatten(0, 1), batch.targets.flatten(), reduction="sum")
    else:
        total, _ = loss_sum_and_count(model, batch)
    (total / ids.numel()).backward()
    del total
    optimizer.reduce_gradients()
    optimizer.step(1.0, 0.9)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{peak} {time.perf_counter() - started:.1f}", flush=True)


def main() -> None:
    """Measure every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--vocab-size", type=int, default=65536)
    parser.add_argument("--generation", default="classic", choices=("classic", "modern"))
    parser.add_argument("--way", choices=WAYS, help="measure this one in this process")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=WAYS)
    args = parser.parse_args()
    if args.way:
        step(args)
        return
    element_bytes = pick_dtype("cpu").itemsize
    shape = f"d{args.depth} {args.generation}, {args.rows} x {args.seq_len}, vocabulary {args.vocab_size:,}"
    print(f"{shape}, computing in {element_bytes} bytes")
    print("| cross-entropy | peak GiB | planned GiB | seconds |\n|---|---|---|---|")
    for way in args.only:
        command = [sys.executable, "-m", "bench.memory", *sys.argv[1:], f"--way={way}"]
        done = subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True)
        planned = memory(
            model_config(args), args.rows, args.seq_len, element_bytes=element_bytes, device_type="cpu",
            checkpointing=way == "checkpointed",
        ).peak  # fmt: skip
        told = f"{planned / GIB:.2f}" if way != "naive" else "-"
        if done.returncode:
            last = (done.stderr.strip() or f"ended by signal {-done.returncode}").splitlines()[-1]
            print(f"| {way} | failed: {last} | {told} | - |", flush=True)
            continue
        peak, seconds = done.stdout.split()
        print(f"| {way} | {int(peak) / GIB:.2f} | {told} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
