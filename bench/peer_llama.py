"""Single-stream decoding beside llama.cpp: the same parameter count, precision, prompt and threads,
in turn in one run.

    python -m bench.peer_llama --peer-python /path/to/venv/bin/python
    python -m bench.peer_llama --peer-python ... --depth 20 --vocab-size 65536 \\
        --pairs int8:Q8_0 --json d20.json

`--peer-python` is the interpreter of an environment with llama-cpp-python, gguf and numpy; none of
them is needed here. The peer's file is a llama model with random weights of the same depth, width,
heads and vocabulary; its gated MLP has three matrices where ours has two, so that 8/3 of the width
instead of four times as many inner units make the same number of weights. Both decode greedily
after a prompt of 128 tokens; the median step counts, the best round is shown too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 4
PAIRS = ["bf16:F16", "bf16:BF16", "int8:Q8_0"]
LAYOUTS = (
    {"layout": "own", "chunk": 512},
    {"layout": "own", "chunk": 1},
    {"layout": "file", "chunk": 512},
)


def inner_width(width: int) -> int:
    """Units of a gated MLP with as many weights as a plain one of four times the width; a multiple
    of 32 for Q8_0.
    """
    return round(8 * width / 3 / 32) * 32


# --- in the peer's interpreter: gguf, llama_cpp and numpy only


def write_gguf(path: str, kind: str, depth: int, heads: int, vocab_size: int, context: int) -> int:
    """A llama file with random weights of the given type; returns the number of parameters. Norms
    stay fp32.
    """
    import gguf
    import numpy as np

    width, draw = heads * 128, np.random.default_rng(0)
    inner, quant = inner_width(width), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(depth)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(128)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocab_size)
    writer.add_tokenizer_model("no_vocab")
    total = 0

    def add(name: str, *shape: int) -> None:
        nonlocal total
        total += int(np.prod(shape))
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))
            return
        values = draw.standard_normal(shape, dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quants.quantize(values, quant), raw_dtype=quant)

    add("token_embd.weight", vocab_size, width)
    for layer in range(depth):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", width, width)
        add(f"blk.{layer}.ffn_gate.weight", inner, width)
        add(f"blk.{layer}.ffn_up.weight", inner, width)
        add(f"blk.{layer}.ffn_down.weight", width, inner)
        add(f"blk.{layer}.attn_norm.weight", width)
        add(f"blk.{layer}.ffn_norm.weight", width)
    add("output_norm.weight", width)
    add("output.weight", vocab_size, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return total


class Peer:
    """llama.cpp over its C interface: no Python of the wrapper's own in the measured steps but one
    arg-max.
    """

    def __init__(self, path: str, threads: int, context: int, layout: str, chunk: int) -> None:
        import llama_cpp
        import numpy as np

        self.c, self.np, self.chunk = llama_cpp, np, chunk
        self.c.llama_backend_init()
        self.quiet = self.c.llama_log_callback(lambda *_: None)
        self.c.llama_log_set(self.quiet, None)
        model_params, params = (
            self.c.llama_model_default_params(),
            self.c.llama_context_default_params(),
        )
        model_params.use_extra_bufts = layout == "own"
        self.model = self.c.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            raise ValueError(f"{path}: llama.cpp does not load it")
        params.n_ctx, params.n_batch = context, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = self.c.llama_init_from_model(self.model, params)
        if not self.context:
            raise ValueError(f"{path}: llama.cpp makes no context for it")
        self.n_vocab = self.c.llama_vocab_n_tokens(self.c.llama_model_get_vocab(self.model))

    def _decode(self, tokens: list[int]) -> int:
        """Run tokens through the model -> the likeliest next one."""
        array = (self.c.llama_token * len(tokens))(*tokens)
        code = self.c.llama_decode(self.context, self.c.llama_batch_get_one(array, len(tokens)))
        if code:
            raise ValueError(f"llama_decode ended with {code}")
        logits = self.np.ctypeslib.as_array(
            self.c.llama_get_logits(self.context), shape=(self.n_vocab,)
        )
        return int(logits.argmax())

    def measure(self, prompt_tokens: int, n_tokens: int) -> dict[str, float]:
        if hasattr(self.c, "llama_memory_clear"):
            self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)
        else:
            self.c.llama_kv_cache_clear(self.context)
        start = time.perf_counter()
        prompt = [(37 * n + 11) % 256 for n in range(prompt_tokens)]
        for at in range(0, prompt_tokens, self.chunk):
            token = self._decode(prompt[at : at + self.chunk])
        first_s, times = time.perf_counter() - start, []
        for _ in range(n_tokens - 1):
            start = time.perf_counter()
            token = self._decode([token])
            times.append(time.perf_counter() - start)
        return {"first_token_s": first_s, "step_s": statistics.median(times[WARM_UP_STEPS:])}


def serve_peer(job: dict[str, Any]) -> None:
    """Write the file, or load it and measure once for each line on stdin."""
    if "kind" in job:
        print(
            json.dumps(
                {"parameters": write_gguf(**job), "file_bytes": Path(job["path"]).stat().st_size}
            )
        )
        return
    prompt_tokens, tokens = job.pop("prompt_tokens"), job.pop("tokens")
    peer = Peer(**job)
    for _ in sys.stdin:
        print(json.dumps(peer.measure(prompt_tokens, tokens)), flush=True)


# --- here


class PeerProcess:
    """The other interpreter with one model loaded. `measure` raises ValueError when it has died."""

    def __init__(self, python: str, job: dict[str, Any]) -> None:
        words = [python, str(Path(__file__).resolve()), "--peer-job", json.dumps(job)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise ValueError(f"the peer ended with exit code {self.process.wait()}")
        return json.loads(said)

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)


def fastest_layout(python: str, job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the layout that the peer decodes fastest with, tokens/s or what went wrong for each)."""
    tried: dict[str, Any] = {}
    for layout in LAYOUTS:
        name = f"{layout['layout']} layout, prompt in pieces of {layout['chunk']}"
        if layout["chunk"] == 1 and not isinstance(next(iter(tried.values())), str):
            continue
        peer = PeerProcess(python, {**job, **layout})
        try:
            tried[name] = 1 / min(peer.measure()["step_s"] for _ in range(2))
        except ValueError as error:
            tried[name] = str(error)
        peer.close()
    rates = {name: rate for name, rate in tried.items() if not isinstance(rate, str)}
    if not rates:
        raise SystemExit(f"llama.cpp runs with none of its layouts: {tried}")
    best = max(rates, key=lambda name: rates[name])
    return next(
        x for x in LAYOUTS if f"{x['layout']} layout, prompt in pieces of {x['chunk']}" == best
    ), tried


def compare(args: argparse.Namespace, pair: str) -> dict[str, Any]:
    """`--rounds` times ours then theirs, for one pair of precisions."""
    from bench.decode import measure
    from bench.random_models import convert, random_model, wide_tokenizer
    from nanochat.engine import Engine, SamplingParams

    own_kind, peer_kind = pair.split(":")
    model = convert(random_model(args.depth, args.vocab_size, "classic", args.context), "bf16")
    model = convert(model, own_kind)
    engine = Engine(model, wide_tokenizer(args.vocab_size), max_running=1)
    params = SamplingParams(
        temperature=0.0, max_tokens=args.tokens, seed=0, tools="off", ignore_end=True
    )
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = {"path": str(Path(folder) / "peer.gguf"), "context": args.context}
        shape = {"depth": args.depth, "heads": model.config.n_head, "vocab_size": args.vocab_size}
        words = [args.peer_python, str(Path(__file__).resolve()), "--peer-job"]
        write = json.dumps({**place, **shape, "kind": peer_kind})
        facts = json.loads(
            subprocess.run([*words, write], check=True, stdout=subprocess.PIPE).stdout
        )
        sizes = {
            "threads": args.threads,
            "prompt_tokens": args.prompt_tokens,
            "tokens": args.tokens,
        }
        layout, tried = fastest_layout(args.peer_python, {**place, **sizes})
        peer = PeerProcess(args.peer_python, {**place, **sizes, **layout})
        peer.measure()
        measure(engine, 1, args.prompt_tokens, params, seed=-1)
        for number in range(args.rounds):
            ours.append(measure(engine, 1, args.prompt_tokens, params, seed=number))
            theirs.append(peer.measure())
        peer.close()
    rates = {
        who: sorted(1 / result["step_s"] for result in results)
        for who, results in (("ours", ours), ("peer", theirs))
    }
    ratios = sorted(b["step_s"] / a["step_s"] for a, b in zip(ours, theirs, strict=True))
    result = {
        "pair": pair,
        "ours_by": "native" if engine.runner.native else "torch",
        "ours_tokens_per_s": statistics.median(rates["ours"]),
        "peer_tokens_per_s": statistics.median(rates["peer"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "ours_first_token_s": statistics.median(r["first_token_s"] for r in ours),
        "peer_first_token_s": statistics.median(r["first_token_s"] for r in theirs)
        if layout["chunk"] > 1
        else None,
        "parameters": {"ours": model_parameters(model), "peer": facts["parameters"]},
        "peer_layout": layout,
        "peer_layouts_tried": tried,
        "rounds": dict(rates),
    }
    said = (
        f"{result['ours_tokens_per_s']:6.1f}  {peer_kind:5} llama.cpp "
        f"{result['peer_tokens_per_s']:6.1f} tokens/s"
    )
    print(
        f"{own_kind:5} ours {said}, ratio {result['ratio']:.2f} ({ratios[0]:.2f} to "
        f"{ratios[-1]:.2f})",
        flush=True,
    )
    return result


def model_parameters(model: Any) -> int:
    """Weights, int8 ones included, scales left out."""
    buffers = (tensor for name, tensor in model.named_buffers() if name.endswith("weight_int8"))
    return sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in buffers)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer-python", help="interpreter that has llama-cpp-python, gguf and numpy"
    )
    parser.add_argument("--pairs", nargs="+", default=PAIRS, help="precisions, ours:theirs")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--peer-job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.peer_job and not args.peer_python:
        parser.error(
            "--peer-python: give the interpreter of an environment with llama-cpp-python, gguf "
            "and numpy"
        )
    return args


def main() -> None:
    args = arguments()
    if args.peer_job:
        serve_peer(json.loads(args.peer_job))
        return
    import torch

    from nanochat.runtime.files import atomic_write
    from nanochat.runtime.machine import environment

    torch.set_num_threads(args.threads)
    print(
        f"classic d{args.depth}, vocabulary {args.vocab_size}, {args.prompt_tokens} tokens in, "
        f"{args.threads} threads"
    )
    results = [compare(args, pair) for pair in args.pairs]
    if args.json:
        settings = {
            "depth": args.depth,
            "vocab_size": args.vocab_size,
            "threads": args.threads,
            "rounds": args.rounds,
        }
        report = {**settings, "results": results, "environment": environment()}
        atomic_write(args.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
