"""Latency and throughput of a real server over the number of clients (`nanochat bench serve`).

Each client asks, reads the answer as it is written, and asks again, with a prompt that nobody has
sent before. A level is one number of clients for some seconds; what arrives within them counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from bench.timed_client import TimedReply, ask, chat_body, percentiles
from nanochat.checkpoint_manager import FOLDERS, save_checkpoint
from nanochat.config import Short, as_dict
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import environment
from nanochat.serve.web_config import is_loopback, read_keys

WORDS = (
    "sea house bird moon river stone song garden winter lamp bread paper window morning "
    "letter cloud"
).split()
START_S, STOP_S = 300.0, 60.0
LEAST_SLOTS = 32


@dataclass
class ServeBenchConfig:
    """Measure a server: one started here on a free port of this machine, or the one at --url."""

    source: Annotated[Literal["sft", "mid", "base", "rl"], Short("-i")] = "sft"
    """Stage whose checkpoint is served."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which model (default: the deepest)."""
    step: Annotated[int | None, Short("-s")] = None
    """Which checkpoint (default: the newest)."""
    depth: int | None = None
    """Serve a model of so many layers with random weights instead of a checkpoint."""
    vocab_size: int = 32768
    """With --depth."""
    generation: Literal["classic", "modern"] = "classic"
    """With --depth."""
    url: str | None = None
    """A server that is already running, on this machine."""
    api_key_file: Path | None = None
    """With --url: file whose first line is an API key."""
    int8: bool = False
    """Weights as 8-bit whole numbers."""
    device_type: str | None = None
    """cuda, cpu or mps (default: the best there is)."""
    clients: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])
    """Numbers of clients to measure."""
    seconds: float = 20.0
    """For each of them."""
    prompt_characters: int = 400
    """Length of each question."""
    max_tokens: int = 64
    """Longest answer."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    json: Path | None = None
    """Write everything here too."""
    plot: Path | None = None
    """Write a picture here."""

    def problems(self) -> list[str]:
        problems = []
        if not self.clients or min(self.clients) < 1:
            problems.append("--clients: at least one number, each 1 or more")
        for name in ("seconds", "prompt_characters", "max_tokens"):
            if getattr(self, name) <= 0:
                problems.append(
                    f"--{name.replace('_', '-')}={getattr(self, name)}: must be above 0"
                )
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
                problems.append(
                    f"--url={self.url}: must be http:// and this machine, e.g. "
                    "http://127.0.0.1:8000"
                )
            if self.depth is not None:
                problems.append("--depth: not together with --url")
        return problems


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    host: str
    port: int
    key: str | None = None


def bench_serve(config: ServeBenchConfig) -> int:
    """Measure every level, printing as it goes -> exit code: 1 when a request was not answered."""
    levels = []
    with target(config) as place:
        asyncio.run(
            run_level(place, 1, 0.5, config, seed=-1)
        )  # caches of the first request fill here
        for n_clients in config.clients:
            levels.append(
                asyncio.run(run_level(place, n_clients, config.seconds, config, seed=n_clients))
            )
            print(line(levels[-1]), flush=True)
    report = {"settings": as_dict(config), "levels": levels, "environment": environment()}
    if config.json:
        atomic_write(config.json, json.dumps(report, indent=1) + "\n")
    if config.plot:
        plot(levels, config.plot)
    return 0 if all(set(level["statuses"]) == {"200"} for level in levels) else 1


@contextlib.contextmanager
def target(config: ServeBenchConfig) -> Iterator[Target]:
    """The server to measure; one started for it is stopped afterwards. ValueError when it does not
    start.
    """
    if config.url is not None:
        parts = urlsplit(config.url)
        key = None if config.api_key_file is None else read_keys(config.api_key_file)[0]
        yield Target(parts.hostname or "localhost", parts.port or 80, key)
        return
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ)
        words = ["-i", config.source]
        words += ["-g", config.model_tag] if config.model_tag else []
        words += [] if config.step is None else ["-s", str(config.step)]
        if config.depth is not None:
            env["NANOCHAT_BASE_DIR"], words = folder, ["-i", "sft"]
            save_random(Path(folder), config)
        slots = max(LEAST_SLOTS, *config.clients)
        words += ["-p", "0", "--max-running", str(slots), "--max-queue", str(2 * slots)]
        words += ["--int8"] if config.int8 else []
        words += ["--device-type", config.device_type] if config.device_type else []
        with started([sys.executable, "-m", "nanochat", "chat-web", *words], env) as port:
            yield Target("127.0.0.1", port)


@contextlib.contextmanager
def started(words: list[str], env: dict[str, str]) -> Iterator[int]:
    """Run a server until the block ends; its port, which it prints when it is ready."""
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = None
        for said in process.stdout:
            print(said, end="", flush=True)
            found = re.search(r"at http://\S+:(\d+)", said)
            if found:
                break
        if found is None:
            raise ValueError(
                f"the server did not start (exit code {process.wait(timeout=STOP_S)}); see above"
            )
        yield int(found.group(1))
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        finally:
            process.kill()


def save_random(base: Path, config: ServeBenchConfig) -> None:
    """A checkpoint of random weights that writes letters until `max_tokens`."""
    import torch

    from bench.random_models import random_model, spell_letters, wide_tokenizer

    assert config.depth is not None
    model = spell_letters(random_model(config.depth, config.vocab_size, config.generation))
    tokenizer, directory = (
        wide_tokenizer(config.vocab_size),
        base / FOLDERS["sft"] / f"d{config.depth}",
    )
    meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.identity()}
    save_checkpoint(directory, 0, model.to(torch.bfloat16).state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")


async def run_level(
    place: Target, n_clients: int, seconds: float, config: ServeBenchConfig, seed: int
) -> dict[str, Any]:
    """`n_clients` for `seconds` -> tokens/s, percentiles of the time to the first token and between
    tokens.
    """
    draw, numbers = random.Random(seed), itertools.count()
    replies: list[TimedReply] = []
    start_s = time.monotonic()
    end_s = start_s + seconds

    async def client() -> None:
        while time.monotonic() < end_s:
            text = f"{seed} {next(numbers)} "  # first, so that no prompt begins like another
            while len(text) < config.prompt_characters:
                text += draw.choice(WORDS) + " "
            body = chat_body(text.strip(), config.max_tokens, temperature=config.temperature)
            replies.append(await ask(place.host, place.port, body, place.key))

    await asyncio.gather(*[client() for _ in range(n_clients)])
    return summary(replies, n_clients, seconds, end_s)


def summary(
    replies: list[TimedReply], n_clients: int, seconds: float, end_s: float
) -> dict[str, Any]:
    """The numbers of one level; tokens count that came before `end_s`."""
    answered = [reply for reply in replies if reply.status == 200]
    tokens = sum(
        reply.tokens_a_piece * sum(at < end_s for at in reply.piece_times_s) for reply in answered
    )
    prompts = [reply.prompt_tokens for reply in answered if reply.prompt_tokens]
    first = [reply.first_token_s for reply in answered if reply.first_token_s is not None]
    return {
        "clients": n_clients,
        "requests": len(replies),
        "statuses": {
            str(status): count
            for status, count in sorted(Counter(r.status for r in replies).items())
        },
        "prompt_tokens": sum(prompts) / len(prompts) if prompts else None,
        "tokens_per_s": tokens / seconds,
        "first_token_s": percentiles(first),
        "between_tokens_s": percentiles([gap for reply in answered for gap in reply.gaps_s]),
    }


def line(level: dict[str, Any]) -> str:
    """A level as one line of text."""

    def shown(values: dict[str, float | None]) -> str:
        return " / ".join(
            "-" if value is None else f"{value * 1e3:.0f}" for value in values.values()
        )

    refused = {status: count for status, count in level["statuses"].items() if status != "200"}
    return (
        f"{level['clients']:4d} clients: {level['tokens_per_s']:7.1f} tokens/s, ms to first "
        "token (p50/p90/p99) "
        f"{shown(level['first_token_s'])}, between tokens {shown(level['between_tokens_s'])}"
        + (f", not answered: {refused}" if refused else "")
    )


def plot(levels: list[dict[str, Any]], path: str | Path) -> None:
    """Throughput, and latencies at p50 and p99, over the number of clients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.5))
    clients = [level["clients"] for level in levels]
    axes[0].plot(clients, [level["tokens_per_s"] for level in levels], marker="o")
    axes[0].set(ylabel="tokens/s, all clients", ylim=(0, None))
    for axis, name, label in (
        (axes[1], "first_token_s", "to the first token"),
        (axes[2], "between_tokens_s", "between tokens"),
    ):
        for share in ("p50", "p99"):
            axis.plot(
                clients,
                [1e3 * (level[name][share] or float("nan")) for level in levels],
                marker="o",
                label=share,
            )
        axis.set(ylabel=f"ms {label}", ylim=(0, None))
        axis.legend()
    for axis in axes:
        axis.set(xlabel="clients")
        axis.set_xscale("log")
        axis.set_xticks(clients, [str(number) for number in clients])
        axis.minorticks_off()
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
