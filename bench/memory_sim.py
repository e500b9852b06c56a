"""Planned against simulated peak memory of a training step on a GPU; needs none.

`python -m bench.memory_sim [--eager] [--shape classic,12,8,65536,L ...]` prints bytes allocated at
the fullest moment, without the context and the fragmentation that the plan adds. A compiled d20
takes minutes to trace.
"""

from __future__ import annotations

import argparse
import time

from bench.simulate import Tally, simulate
from nanochat.cost import GIB, Memory, memory
from nanochat.gpt import GPTConfig
from nanochat.train.scaling import shape_for_depth

# generation, depth, rows, vocabulary, windows
SHAPES = (
    "classic,12,8,65536,L",
    "classic,20,4,65536,L",
    "modern,12,16,32768,SSSL",
    "modern,20,4,32768,SSSL",
)


def model_config(
    generation: str, depth: int, vocab_size: int, windows: str, seq_len: int
) -> GPTConfig:
    shape = shape_for_depth(depth)
    return GPTConfig(
        seq_len, vocab_size, depth, shape.n_head, shape.n_head, shape.n_embd, windows, generation
    )  # type: ignore[arg-type]


def allocated(planned: Memory) -> int:
    """Without what the simulation does not see."""
    return planned.peak - planned.runtime


def simulated(config: GPTConfig, rows: int, seq_len: int, compiled: bool, **how: int) -> Tally:
    if not compiled:
        return simulate(config, rows, seq_len, **how)  # type: ignore[arg-type]
    from bench.simulate_compiled import simulate_compiled

    return simulate_compiled(config, rows, seq_len, **how)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="*", default=list(SHAPES))
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument(
        "--eager", action="store_true", help="leave out the compiled ways, which take long to trace"
    )
    args = parser.parse_args()
    print(
        "| model | way | simulated GiB | planned GiB | planned / simulated | s |\n"
        "|---|---|---|---|---|---|"
    )
    how = {"world_size": args.world_size, "micro_batches": args.micro_batches}
    for shape in args.shape:
        generation, depth, rows, vocab_size, windows = shape.split(",")
        config = model_config(generation, int(depth), int(vocab_size), windows, args.seq_len)
        name = f"{generation} d{depth} {windows}, {rows} x {args.seq_len}, V = {int(vocab_size):,}"
        for compiled in (False,) if args.eager else (False, True):
            for checkpointing in (False, True):
                started = time.perf_counter()
                ways = {"checkpointing": checkpointing, **how}
                truth = simulated(config, int(rows), args.seq_len, compiled, **ways).peak
                planned = allocated(
                    memory(config, int(rows), args.seq_len, compiled=compiled, **ways)
                )  # type: ignore[arg-type]
                way = ("compiled" if compiled else "eager") + (
                    ", checkpointing" if checkpointing else ""
                )
                numbers = f"{truth / GIB:.2f} | {planned / GIB:.2f} | {planned / truth:.3f}"
                print(
                    f"| {name} | {way} | {numbers} | {time.perf_counter() - started:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
