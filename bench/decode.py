"""How fast the engine decodes, against how fast the memory could feed it: `nanochat bench decode`.

    python -m bench.decode                        d12 of the classic shape, 1 to 16 streams
    python -m bench.decode --depth 20 --vocab-size 65536 --kinds int8 --json d20.json
    python -m bench.decode --pairs 5 --against "other command"     both in turn

A decoding step reads every weight matrix and the keys and values of its streams once; the embedding
is looked up, not read. Those bytes over the time of a step are GB/s; over the bandwidth measured on
the same threads or device they are the MBU. The first steps are left out, the median of the rest
counts. Weights are random: only their number matters.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from bench.random_models import KINDS, convert, random_model, wide_tokenizer
from nanochat.engine import Engine, SamplingParams
from nanochat.engine.native.structs import memory_bandwidth
from nanochat.engine.quantize import Int8Linear
from nanochat.engine.runner import Static
from nanochat.gpt import GPT, Linear
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import environment
from nanochat.runtime.world import World

WARM_UP_STEPS = 4


@dataclass
class DecodeBenchConfig:
    """Decoding speed of a model with random weights: tokens/s, GB/s and MBU over numbers of
    streams.
    """

    depth: int = 12
    """Layers; the width is 64 times as much, rounded up to heads of 128."""
    vocab_size: int = 32768
    """Entries of the vocabulary."""
    generation: Literal["classic", "modern"] = "classic"
    """Architecture."""
    context: int = 2048
    """Tokens of the model's context."""
    kinds: list[Literal["fp32", "bf16", "int8"]] = field(default_factory=lambda: ["bf16", "int8"])
    """Precisions of the weights to measure."""
    streams: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    """How many answers are written at the same time."""
    prompt_tokens: int = 128
    """Length of each prompt."""
    tokens: int = 64
    """Length of each answer."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    top_k: int | None = None
    """Draw from the k likeliest tokens only."""
    threads: int = 0
    """0: as torch chooses."""
    native: bool = True
    """Decode in C where there is a compiler (CPU)."""
    graphs: bool = True
    """Decode through CUDA graphs (GPU)."""
    compile: bool = False
    """Fuse the graphs' kernels first: about a minute for each number of streams."""
    device_type: str | None = None
    """cuda or cpu (default: the best there is)."""
    json: Path | None = None
    """Write everything here too."""
    plot: Path | None = None
    """Write a picture here."""
    pairs: int = 1
    """How often to run this and --against in turn, so that both see the same machine."""
    against: str | None = None
    """Another command to run in turn with this one."""

    def problems(self) -> list[str]:
        problems = []
        if self.device_type not in (None, "", "cuda", "cpu"):
            problems.append(f"--device-type={self.device_type}: must be cuda or cpu")
        for name in ("depth", "prompt_tokens", "pairs"):
            if getattr(self, name) < 1:
                problems.append(
                    f"--{name.replace('_', '-')}={getattr(self, name)}: must be 1 or more"
                )
        if self.tokens < 3 * WARM_UP_STEPS:
            problems.append(
                f"--tokens={self.tokens}: must be {3 * WARM_UP_STEPS} or more; the first steps "
                "are left out"
            )
        if self.prompt_tokens + self.tokens > self.context:
            problems.append(
                f"--context={self.context}: must hold --prompt-tokens and --tokens together"
            )
        if not self.streams or min(self.streams) < 1 or not self.kinds:
            problems.append("--streams, --kinds: at least one, and streams of 1 or more")
        return problems


def weight_bytes_read(model: GPT) -> int:
    """Bytes of weights that one decoding step reads (embedding rows, a few per token, are left
    out).
    """
    total = 0
    for module in model.modules():
        if isinstance(module, Int8Linear):
            total += module.weight_int8.nbytes + module.scale.nbytes
        elif isinstance(module, Linear):
            total += module.weight.nbytes
    return total


def measure(
    engine: Engine,
    streams: int,
    prompt_tokens: int,
    params: SamplingParams,
    seed: int | None = None,
) -> dict[str, float]:
    """Decode `streams` prompts together -> time to first token, tokens/s, bytes of a step, GB/s."""
    config, generator = engine.model.config, random.Random(streams if seed is None else seed)
    prompts = [[generator.randrange(256) for _ in range(prompt_tokens)] for _ in range(streams)]
    start = time.perf_counter()
    for prompt in prompts:
        engine.submit(prompt, params)
    begun: set[int] = set()
    while len(begun) < streams:
        begun |= {event.request for event in engine.step()}
    first_s = time.perf_counter() - start
    times = []
    while engine.has_work:
        start = time.perf_counter()
        events = engine.step()
        if len(events) == streams:  # everybody was decoding
            times.append(time.perf_counter() - start)
    step_s = statistics.median(times[WARM_UP_STEPS:])
    token_bytes = 2 * config.n_layer * config.kv_dim * engine.runner.dtype.itemsize
    held = prompt_tokens + params.max_tokens / 2 if params.max_tokens else prompt_tokens
    step_bytes = weight_bytes_read(engine.model) + streams * held * token_bytes
    return {
        "streams": streams,
        "first_token_s": first_s,
        "step_s": step_s,
        "tokens_per_s": streams / step_s,
        "step_bytes": step_bytes,
        "gb_per_s": step_bytes / step_s / 1e9,
    }


def bandwidth_of(model: GPT) -> float | None:
    """Bytes a second that can be read, at best, of as many bytes as a step reads of the model; None
    where unknown.
    """
    n_bytes = weight_bytes_read(model)
    if model.get_device().type == "cpu":
        return memory_bandwidth(n_bytes)
    source = torch.ones(max(n_bytes, 1 << 28) // 4, device=model.get_device())
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        source.sum()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return source.numel() * 4 / min(times)


def bench_decode(config: DecodeBenchConfig, world: World) -> None:
    """Measure every kind and number of streams, printing as it goes."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    for _ in range(config.pairs):
        report = run(config, world.device)
        if config.against:
            subprocess.run(config.against.split(), check=False)
    if config.json:
        atomic_write(config.json, json.dumps(report, indent=1) + "\n")
    if config.plot:
        plot(report, config.plot)


def run(config: DecodeBenchConfig, device: torch.device) -> dict[str, Any]:
    model = random_model(config.depth, config.vocab_size, config.generation, config.context)
    tokenizer = wide_tokenizer(config.vocab_size)
    parameters, threads = sum(p.numel() for p in model.parameters()), torch.get_num_threads()
    print(
        f"{config.generation} d{config.depth}, {parameters / 1e6:.0f}M parameters, "
        f"{device.type}, {threads} threads"
    )
    results, bandwidth = [], None
    params = SamplingParams(
        temperature=config.temperature,
        top_k=config.top_k,
        max_tokens=config.tokens,
        seed=0,
        tools="off",
        ignore_end=True,
    )
    for kind in sorted(config.kinds, key=KINDS.index):
        convert(model, kind).to(device)
        bandwidth = bandwidth_of(model) or bandwidth
        most = max(config.streams)
        static: Static = ("compiled" if config.compile else None) if config.graphs else False
        engine = Engine(
            model,
            tokenizer,
            max_running=most,
            max_step_tokens=max(512, most),
            native=config.native,
            static=static,
        )
        how = "native" if engine.runner.native else "graphs" if engine.runner.static else "torch"
        for streams in config.streams:
            if engine.runner.static:  # captures on the way are no part of decoding
                measure(engine, streams, config.prompt_tokens, params, seed=-1)
                # or the cache would grow, and with it go what was captured
                engine.pool.drop_retained()
            numbers = measure(engine, streams, config.prompt_tokens, params)
            mbu = numbers["gb_per_s"] * 1e9 / bandwidth if bandwidth else None
            result = {"kind": kind, "by": how, **numbers, "mbu": mbu}
            results.append(result)
            print(line(result, bandwidth), flush=True)
            engine.pool.drop_retained() if engine.runner.static else engine.trim()
    shape = {
        "generation": config.generation,
        "depth": config.depth,
        "vocab_size": config.vocab_size,
    }
    facts = {
        **shape,
        "parameters": parameters,
        "threads": threads,
        "bandwidth_bytes_per_s": bandwidth,
    }
    return {
        **facts,
        "prompt_tokens": config.prompt_tokens,
        "results": results,
        "environment": environment(),
    }


def line(result: dict[str, Any], bandwidth: float | None) -> str:
    """A result as one line of text."""
    share = f", MBU {result['mbu']:.0%} of {bandwidth / 1e9:.1f}" if bandwidth else ""
    return (
        f"{result['kind']} {result['by']} {result['streams']:3d} streams: "
        f"{result['tokens_per_s']:7.1f} tokens/s, step "
        f"{result['step_s'] * 1e3:6.2f} ms, first token {result['first_token_s'] * 1e3:6.0f} ms, "
        f"{result['gb_per_s']:5.1f} GB/s{share}"
    )


def plot(report: dict[str, Any], path: str | Path) -> None:
    """Throughput and time of a step over the number of streams, a line for each kind of weights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for kind in sorted({result["kind"] for result in report["results"]}):
        rows = [result for result in report["results"] if result["kind"] == kind]
        axes[0].plot(
            [r["streams"] for r in rows], [r["tokens_per_s"] for r in rows], marker="o", label=kind
        )
        axes[1].plot(
            [r["streams"] for r in rows], [r["step_s"] * 1e3 for r in rows], marker="o", label=kind
        )
    for axis, label in zip(axes, ("tokens/s, all streams", "ms a token, each stream"), strict=True):
        axis.set(xlabel="streams", ylabel=label, ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    from nanochat.cli import main

    main(["bench", "decode", *sys.argv[1:]])
