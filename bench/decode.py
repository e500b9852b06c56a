"""How fast the engine decodes, against how fast the memory could feed it.

    python -m bench.decode                                      d12 of the classic shape, bf16 and int8, 1 to 16 streams
    python -m bench.decode --depth 20 --vocab-size 65536 --kinds int8 --json d20.json --plot d20.png
    python -m bench.decode --pairs 5 --against "other command"   runs both in turn, so that both see the same machine

A decoding step reads every weight matrix and the keys and values of its streams once; the embedding is looked up, not
read. Those bytes over the time of a step are GB/s; over the bandwidth measured on the same threads they are the MBU.
The first steps are left out, the median of the rest counts. Weights are random: only their number matters.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from nanochat.engine import Engine, SamplingParams
from nanochat.engine.native.structs import memory_bandwidth
from nanochat.engine.quantize import quantize_int8, weight_bytes_read
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.run_dir import environment
from nanochat.tokenizer import Tokenizer

WARM_UP_STEPS = 4


def wide_tokenizer(vocab_size: int) -> Tokenizer:
    """A tokenizer with as many tokens as the model, so that sampling sees them all: bytes, then pairs of bytes."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    pairs = (bytes([a, b]) for a in range(256) for b in range(256))
    special = len(Tokenizer.byte_level().special_tokens)
    while len(ranks) < vocab_size - special:
        ranks[next(pairs)] = len(ranks)
    names = Tokenizer.byte_level().special_tokens
    return Tokenizer(ranks, {name: len(ranks) + at for at, name in enumerate(names)})


def random_model(args: argparse.Namespace) -> GPT:
    """A model of the given depth with random weights: width depth * 64, rounded up to heads of 128."""
    heads = -(-args.depth * 64 // 128)
    config = GPTConfig(
        args.context, args.vocab_size, args.depth, heads, heads, heads * 128,
        "L" if args.generation == "classic" else "SSSL", args.generation,
    )  # fmt: skip
    model = GPT(config)
    model.init_weights()
    return model.requires_grad_(False).eval()


def convert(model: GPT, kind: str) -> GPT:
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    model.to(dtype)
    model.compute_dtype = dtype
    return quantize_int8(model) if kind == "int8" else model


def measure(engine: Engine, streams: int, args: argparse.Namespace, params: SamplingParams) -> dict[str, float]:
    """Decode `streams` prompts together -> time to first token, tokens/s, bytes of a step, GB/s."""
    config, generator = engine.model.config, random.Random(streams)
    prompts = [[generator.randrange(256) for _ in range(args.prompt_tokens)] for _ in range(streams)]
    start = time.perf_counter()
    requests = [engine.submit(prompt, params) for prompt in prompts]
    while not all(request.events for request in requests):
        engine.step()
    first_s = time.perf_counter() - start
    times = []
    while engine.has_work:
        start = time.perf_counter()
        events = engine.step()
        if len(events) == streams:  # everybody was decoding
            times.append(time.perf_counter() - start)
    step_s = statistics.median(times[WARM_UP_STEPS:])
    token_bytes = 2 * config.n_layer * config.kv_dim * engine.runner.dtype.itemsize
    held = args.prompt_tokens + params.max_tokens / 2 if params.max_tokens else args.prompt_tokens
    step_bytes = weight_bytes_read(engine.model) + streams * held * token_bytes
    engine.trim()
    return {
        "streams": streams, "first_token_s": first_s, "step_s": step_s, "tokens_per_s": streams / step_s,
        "step_bytes": step_bytes, "gb_per_s": step_bytes / step_s / 1e9,
    }  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every kind and number of streams, printing as it goes."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    model, tokenizer = random_model(args), wide_tokenizer(args.vocab_size)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{args.generation} d{args.depth}, {parameters / 1e6:.0f}M parameters, {torch.get_num_threads()} threads")
    results, bandwidth = [], None
    params = SamplingParams(args.temperature, args.top_k, max_tokens=args.tokens, seed=0, tools="off", ignore_end=True)
    for kind in sorted(args.kinds, key=["fp32", "bf16", "int8"].index):  # each is made from the one before
        convert(model, kind)
        bandwidth = memory_bandwidth(weight_bytes_read(model)) or bandwidth
        engine = Engine(model, tokenizer, max_running=max(args.streams), native=not args.no_native)
        how = "native" if engine.runner.native else "torch"
        for streams in args.streams:
            result = {"kind": kind, "by": how, **measure(engine, streams, args, params)}
            result["mbu"] = result["gb_per_s"] * 1e9 / bandwidth if bandwidth else None
            results.append(result)
            share = f", MBU {result['mbu']:.0%} of {bandwidth / 1e9:.1f}" if bandwidth else ""
            print(
                f"{kind} {how} {streams:3d} streams: {result['tokens_per_s']:7.1f} tokens/s, step "
                f"{result['step_s'] * 1e3:6.2f} ms, first token {result['first_token_s'] * 1e3:6.0f} ms, "
                f"{result['gb_per_s']:5.1f} GB/s{share}",
                flush=True,
            )
    shape = {"generation": args.generation, "depth": args.depth, "vocab_size": args.vocab_size}
    return {**shape, "prompt_tokens": args.prompt_tokens, "results": results, "environment": environment()}


def plot(report: dict[str, Any], path: str) -> None:
    """Throughput and time of a step over the number of streams, a line for each kind of weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for kind in sorted({result["kind"] for result in report["results"]}):
        rows = [result for result in report["results"] if result["kind"] == kind]
        axes[0].plot([r["streams"] for r in rows], [r["tokens_per_s"] for r in rows], marker="o", label=kind)
        axes[1].plot([r["streams"] for r in rows], [r["step_s"] * 1e3 for r in rows], marker="o", label=kind)
    for axis, label in zip(axes, ("tokens/s, all streams", "ms a token, each stream"), strict=True):
        axis.set(xlabel="streams", ylabel=label, ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--generation", choices=["classic", "modern"], default="classic")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--kinds", nargs="+", choices=["fp32", "bf16", "int8"], default=["bf16", "int8"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 2, 4, 8, 16])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-k", type=int, default=None)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-native", action="store_true", help="decode with gpt.py alone")
    parser.add_argument("--json", default=None)
    parser.add_argument("--plot", default=None)
    parser.add_argument("--pairs", type=int, default=1, help="how often to run this and --against in turn")
    parser.add_argument("--against", default=None, help="a command to run in turn with this one")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for _ in range(args.pairs):
        report = run(args)
        if args.against:
            subprocess.run(args.against.split(), check=False)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))
    if args.plot:
        plot(report, args.plot)


if __name__ == "__main__":
    main()
