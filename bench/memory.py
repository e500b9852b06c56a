"""Peak memory of a d12 training step: whole logits, chunked cross-entropy, activation
checkpointing, compiled (GPU).

`python -m bench.memory [--rows 8] [--depth 12]` runs each way in its own process and prints
measured and planned peaks, on a GPU where there is one. On a CPU the step is forward, backward and
the optimizer's first update, which makes its states, and the peak what is resident; on a GPU two
steps of two micro-batches, and what the allocator took of the card.
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

from nanochat.cost import GIB
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.compiled import forward_pass
from nanochat.train.derive import shape_for_depth
from nanochat.train.objective import loss_sum_and_count
from nanochat.training_memory import StepShape, training_memory

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"cpu": ("naive", "chunked", "checkpointed")}
WAYS["cuda"] = (*WAYS["cpu"], "compiled", "compiled-checkpointed")


def model_config(args: argparse.Namespace) -> GPTConfig:
    shape = shape_for_depth(args.depth)
    return GPTConfig.preset(
        args.generation,
        sequence_len=args.seq_len,
        vocab_size=args.vocab_size,
        n_layer=args.depth,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        n_embd=shape.n_embd,
        window_pattern="L",
    )


def step(args: argparse.Namespace, device: torch.device) -> None:
    """The step in this process; prints peak bytes and seconds of the last optimizer step."""
    with device:
        model = GPT(model_config(args))
    model.init_weights(0)
    model.compute_dtype = pick_dtype(device)
    model.activation_checkpointing = args.way.endswith("checkpointed")
    world = World(0, 0, 1, device)
    optimizer = Optimizer(parameter_groups(model, RECIPES[args.generation].optim), world)
    forward = forward_pass(model, args.way.startswith("compiled"), 0)
    ids = torch.randint(0, args.vocab_size, (args.rows, args.seq_len + 1), device=device)
    weights = torch.ones(args.rows, args.seq_len, device=device)
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights)
    n_steps = n_micro = 2 if device.type == "cuda" else 1
    for _ in range(n_steps):
        started = time.perf_counter()
        for _ in range(n_micro):
            if args.way == "naive":
                total = F.cross_entropy(
                    model(batch.input_ids).flatten(0, 1), batch.targets.flatten(), reduction="sum"
                )
            else:
                total, _ = loss_sum_and_count(model, batch, forward)
            (total / ids.numel()).backward()
            del total
        optimizer.reduce_gradients()
        optimizer.step(1.0, 0.9)
    print(f"{peak_bytes(device)} {time.perf_counter() - started:.1f}", flush=True)


def peak_bytes(device: torch.device) -> int:
    """Of this process on `device`. On a GPU with its context, which the allocator does not know."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.synchronize()
    reserved, peak = torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved()
    free, whole = torch.cuda.mem_get_info(device)
    return peak + max(0, whole - free - reserved)  # nobody else may be on the card


def main() -> None:
    """Measure every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--vocab-size", type=int, default=65536)
    parser.add_argument("--generation", default="classic", choices=("classic", "modern"))
    parser.add_argument("--way", choices=WAYS["cuda"], help="measure this one in this process")
    parser.add_argument("--only", nargs="*", choices=WAYS["cuda"])
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.way:
        step(args, device)
        return
    element_bytes = pick_dtype(device).itemsize
    shape = (
        f"d{args.depth} {args.generation}, {args.rows} x {args.seq_len}, vocabulary "
        f"{args.vocab_size:,}"
    )
    print(f"{shape}, computing in {element_bytes} bytes on {device}")
    print("| cross-entropy | peak GiB | planned GiB | seconds |\n|---|---|---|---|")
    for way in args.only or WAYS[device.type]:
        command = [sys.executable, "-m", "bench.memory", *sys.argv[1:], f"--way={way}"]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True
        )
        shape = StepShape(
            config=model_config(args),
            rows=args.rows,
            seq_len=args.seq_len,
            element_bytes=element_bytes,
            device_type=device.type,
            checkpointing=way.endswith("checkpointed"),
            compiled=way.startswith("compiled"),
        )
        planned = training_memory(shape).peak
        told = f"{planned / GIB:.2f}" if way != "naive" else "-"
        if done.returncode:
            last = (done.stderr.strip() or f"ended by signal {-done.returncode}").splitlines()[-1]
            print(f"| {way} | failed: {last} | {told} | - |", flush=True)
            continue
        peak, seconds = done.stdout.split()
        print(f"| {way} | {int(peak) / GIB:.2f} | {told} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
