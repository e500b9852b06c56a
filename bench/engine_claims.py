"""The numbers that the engine is held to, each measured beside what it is compared with, in one
run.

    python -m bench.engine_claims                       d12 of the classic shape, bf16 and int8
    python -m bench.engine_claims --only turns streams samples --kind int8
    python -m bench.engine_claims --d20                 also one stream of d20 with int8 weights
    python -m bench.engine_claims --only quality --source base --text unseen.txt

decode   one stream, 128-token prompt: tokens/s in bf16 and int8, and the share of the memory's
         bandwidth
samples  eight samples of one prompt (temperature 1, top-k 50): tokens/s together, from asking to
         the last token
streams  sixteen prompts at once against one after another: tokens/s of both
turns    time to the first token of a chat's tenth turn, 1,500 tokens in all, with and without
         prefix reuse
quality  bits per byte of a checkpoint with fp32, bf16 and int8 weights on a text

Weights are random except for `quality`: only their number matters. Rounds alternate; medians are
printed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from bench.decode import bandwidth_of, measure
from bench.random_models import KINDS, convert, random_model, wide_tokenizer
from nanochat.engine import Engine, SamplingParams
from nanochat.gpt import GPT
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import environment

PARTS = ("decode", "samples", "streams", "turns", "quality")


def made(
    args: argparse.Namespace, kind: str, depth: int = 12, vocab_size: int = 32768
) -> tuple[GPT, Any]:
    model = convert(random_model(depth, vocab_size, "classic"), "bf16")
    return convert(model, kind), wide_tokenizer(vocab_size)


def prompt_of(n_tokens: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(256) for _ in range(n_tokens)]


def settings(n_tokens: int, **more: Any) -> SamplingParams:
    return SamplingParams(
        **{"temperature": 0.0, "max_tokens": n_tokens, "tools": "off", "ignore_end": True, **more}
    )


def decode(
    args: argparse.Namespace, kinds: list[str], depth: int = 12, vocab_size: int = 32768
) -> list[dict]:
    """One stream."""
    results = []
    for kind in kinds:
        model, tokenizer = made(args, kind, depth, vocab_size)
        engine, bandwidth = Engine(model, tokenizer), bandwidth_of(model)
        rounds = [measure(engine, 1, 128, settings(64), seed=n) for n in range(args.rounds)]
        rates = sorted(1 / r["step_s"] for r in rounds)
        share = (
            statistics.median(r["gb_per_s"] for r in rounds) * 1e9 / bandwidth
            if bandwidth
            else None
        )
        rate = statistics.median(rates)
        results.append(
            {
                "depth": depth,
                "kind": kind,
                "tokens_per_s": rate,
                "range": [rates[0], rates[-1]],
                "mbu": share,
            }
        )
        said = f", MBU {share:.0%} of {bandwidth / 1e9:.1f} GB/s" if share and bandwidth else ""
        print(
            f"decode   d{depth} {kind}: {rate:.1f} tokens/s ({rates[0]:.1f} to "
            f"{rates[-1]:.1f}){said}",
            flush=True,
        )
    return results


def samples(args: argparse.Namespace) -> dict:
    """Eight samples of one 128-token prompt."""
    model, tokenizer = made(args, args.kind)
    whole, steps = [], []
    for number in range(args.rounds):
        engine = Engine(model, tokenizer)
        request = engine.submit(
            prompt_of(128, number), settings(64, temperature=1.0, top_k=50, seed=number), 8
        )
        start, times = time.perf_counter(), []
        while not request.finished:
            before = time.perf_counter()
            if len(engine.step()) == 8:
                times.append(time.perf_counter() - before)
        whole.append(8 * 64 / (time.perf_counter() - start))
        steps.append(8 / statistics.median(times))
    result = {
        "kind": args.kind,
        "tokens_per_s": statistics.median(whole),
        "decoding": statistics.median(steps),
    }
    print(
        f"samples  d12 {args.kind}: {result['tokens_per_s']:.0f} tokens/s together with reading "
        "the prompt, "
        f"{result['decoding']:.0f} while decoding",
        flush=True,
    )
    return result


def streams(args: argparse.Namespace) -> dict:
    """Sixteen prompts of 128 tokens, 64 tokens each."""
    model, tokenizer = made(args, args.kind)
    engine = Engine(model, tokenizer, reuse_prefixes=False)

    def timed(groups: list[list[list[int]]]) -> float:
        """Seconds for groups of prompts, one group after another, in an engine whose cache has
        grown before.
        """
        start = time.perf_counter()
        for group in groups:
            engine.complete([engine.submit(prompt, settings(64)) for prompt in group])
        return time.perf_counter() - start

    ratios, rates = [], []
    timed([[prompt_of(128, n) for n in range(1000, 1016)]])
    for number in range(max(1, args.rounds // 2)):
        prompts = [prompt_of(128, 100 * number + n) for n in range(16)]
        together, apart = timed([prompts]), timed([[prompt] for prompt in prompts])
        ratios.append(apart / together)
        rates.append(16 * 64 / together)
    steps = [
        measure(Engine(model, tokenizer), n, 128, settings(64))["tokens_per_s"] for n in (1, 16)
    ]
    result = {
        "kind": args.kind,
        "tokens_per_s": statistics.median(rates),
        "ratio": statistics.median(ratios),
        "decoding_ratio": steps[1] / steps[0],
    }
    print(
        f"streams  d12 {args.kind}: 16 at once {result['tokens_per_s']:.0f} tokens/s, "
        f"{result['ratio']:.1f} times one "
        f"after another (prompts included); decoding alone {result['decoding_ratio']:.1f} times",
        flush=True,
    )
    return result


def turns(args: argparse.Namespace) -> dict:
    """Nine turns of 100 + 50 tokens, then the tenth question: 1,500 tokens with its answer."""
    model, tokenizer = made(args, args.kind)
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(args.rounds):
        for reuse in (True, False):
            engine, ids = Engine(model, tokenizer, reuse_prefixes=reuse), []
            for turn in range(10):
                ids += prompt_of(100, 1000 * number + turn)
                request = engine.submit(ids, settings(50))
                start = time.perf_counter()
                while not engine.step():
                    pass
                first_s = time.perf_counter() - start
                while not request.finished:
                    engine.step()
                ids += request.completions()[0].ids
            assert len(ids) == 1500
            times[reuse].append(first_s)
    with_reuse, without = statistics.median(times[True]), statistics.median(times[False])
    result = {
        "kind": args.kind,
        "with_s": with_reuse,
        "without_s": without,
        "ratio": with_reuse / without,
    }
    print(
        f"turns    d12 {args.kind}: first token of turn 10 after {with_reuse * 1e3:.0f} ms with "
        "reuse, "
        f"{without * 1e3:.0f} without: {result['ratio']:.2f}",
        flush=True,
    )
    return result


def quality(args: argparse.Namespace) -> dict:
    """Bits per byte of unseen text, in the same windows for every precision."""
    from nanochat.checkpoint_manager import load_model
    from nanochat.dataloader.loader import Batch
    from nanochat.eval.bpb import bits_per_byte
    from nanochat.model_spec import parse_spec
    from nanochat.runtime.world import World

    spec, world, result = parse_spec(args.source), World(0, 0, 1, torch.device("cpu"), None), {}
    for kind in KINDS:  # int8 from bf16, as it is served
        model, tokenizer, _ = load_model(spec.source, "cpu", "train", spec.tag, spec.step)
        model.requires_grad_(False).eval()
        convert(model, kind)
        width = model.config.sequence_len
        ids = tokenizer.encode(args.text.read_text(encoding="utf-8")[: args.characters])
        ids = [tokenizer.get_bos_token_id(), *ids]
        n_rows = (len(ids) - 1) // width
        rows = torch.tensor(ids[: n_rows * width + 1])
        inputs, targets = rows[:-1].view(-1, width), rows[1:].view(-1, width)
        batches = [
            Batch(inputs[at : at + 4], targets[at : at + 4], torch.ones(inputs[at : at + 4].shape))
            for at in range(0, n_rows, 4)
        ]
        result[kind] = bits_per_byte(model, batches, tokenizer.token_bytes(), world)
        loss = result[kind] / result["fp32"] - 1
        print(
            f"quality  {args.source} {kind}: {result[kind]:.5f} bits per byte, {loss:+.3%}",
            flush=True,
        )
    return {"source": args.source, "tokens": n_rows * width, "bits_per_byte": result}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument(
        "--kind",
        choices=["fp32", "bf16", "int8"],
        default="bf16",
        help="of samples, streams, turns",
    )
    parser.add_argument(
        "--d20", action="store_true", help="decode d20 with int8 weights too (vocabulary 65,536)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--source", default="base", help="quality: the checkpoint, stage:tag:step")
    parser.add_argument("--text", type=Path, help="quality: a UTF-8 file the model has not seen")
    parser.add_argument(
        "--characters", type=int, default=1_000_000, help="quality: how much of the text"
    )
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if "quality" in args.only and args.text is None:
        parser.error("--text: quality needs a file the model has not seen")
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    report: dict[str, Any] = {}
    if "decode" in args.only:
        report["decode"] = decode(args, ["bf16", "int8"])
        if args.d20:
            report["decode"] += decode(args, ["int8"], 20, 65536)
    for name, part in (
        ("samples", samples),
        ("streams", streams),
        ("turns", turns),
        ("quality", quality),
    ):
        if name in args.only:
            report[name] = part(args)
    if args.json:
        facts = {"threads": torch.get_num_threads(), "environment": environment()}
        atomic_write(args.json, json.dumps({**report, **facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
