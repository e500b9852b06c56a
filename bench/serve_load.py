"""Load on the server: many clients read streams of events over loopback, a fifth of them vanish in
mid-answer.

    python -m bench.serve_load --clients 200 --seconds 60
    python -m bench.serve_load --clients 200 --seconds 60 --accounts

Checked at the end: no 5xx, no answer cut short, every finished answer equal to what the engine
alone writes greedily, nothing running or waiting and no cache page held, memory flat. With
--accounts the same is measured twice, without and with them: every client has a key of its own, and
at the end a row of usage for each of its answers. The server (a
tiny random model that spells in bytes, or a checkpoint with --source) runs in a process of its own,
so that its memory is its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.timed_client import ask, chat_body, percentiles
from nanochat.runtime.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
WORDS = "sea house bird moon river stone song garden winter lamp".split()
N_PROMPTS = 64
SETTLE_S = 10.0


def build(source: str | None):
    """(model, tokenizer): a checkpoint's, or a tiny random one that writes letters."""
    import torch

    if source:
        from nanochat.checkpoint_manager import load_model
        from nanochat.model_spec import parse_spec

        spec = parse_spec(source)
        return load_model(spec.source, "cpu", model_tag=spec.tag, step=spec.step)[:2]
    from nanochat.gpt import GPT, GPTConfig
    from nanochat.tokenizer import Tokenizer

    tokenizer = Tokenizer.byte_level()
    model = GPT(
        GPTConfig.preset(
            "modern",
            sequence_len=512,
            vocab_size=tokenizer.get_vocab_size(),
            n_layer=2,
            n_head=2,
            n_kv_head=2,
            n_embd=64,
            window_pattern="L",
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 1.5 / parameter.size(-1) ** 0.5, generator=generator)
        letters = torch.zeros(model.lm_head.weight.size(0), dtype=torch.bool)
        letters[ord("a") : ord("z") + 1] = True
        model.lm_head.weight[~letters] = 0.0
        model.lm_head.weight.mul_(6)
    return model.eval().requires_grad_(False), tokenizer


def serve(source: str | None, max_queue: int, database: str | None) -> None:
    """The server's process: prints its address, ends on SIGTERM."""
    from nanochat.engine import Engine
    from nanochat.serve.http.app import build_app
    from nanochat.serve.http.server import Server, listen
    from nanochat.serve.work.served_model import ModelCard, ServedModel
    from nanochat.serve.work.service import Service
    from nanochat.serve.work.serving_metrics import ServingMetrics
    from nanochat.serve.work.storage import Storage
    from nanochat.serve.work.worker import ThreadWorker
    from nanochat.store.database import Database

    model, tokenizer = build(source)
    metrics = ServingMetrics()
    card = ModelCard(
        name="bench",
        tokenizer=tokenizer,
        context=model.config.sequence_len,
        vocab_size=model.config.vocab_size,
    )
    worker = ThreadWorker(Engine(model, tokenizer))
    served = ServedModel(card, [worker], metrics, max_queue=max_queue)
    service = Service(models={"bench": served}, metrics=metrics)
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        storage = None if database is None else Storage(Database(database))
        app = build_app(service, storage=storage, server_name="bench")
        Server(app, service, lambda: print(port, flush=True)).run(sockets=[bound])


def make_accounts(database: str, n: int) -> list[str]:
    """So many users in an empty database, and a key of each."""
    from nanochat.store import api_keys, users
    from nanochat.store.upgrading import opened

    with opened(database) as store, store.write() as session:
        made = [users.add(session, f"user{number}") for number in range(n)]
        return [api_keys.make(session, user.id, "bench")[1] for user in made]


def usage_problems(database: str, finished: list[int]) -> list[str]:
    """Clients of whose answers not every one has a complete row."""
    from nanochat.store import usage
    from nanochat.store.upgrading import opened

    with opened(database) as store, store.read() as session:
        rows = usage.totals(session, 0.0)
    found = {row.name: row.requests for row in rows}
    return [
        f"user{number}: {found.get(f'user{number}', 0)} rows for {n} answers"
        for number, n in enumerate(finished)
        if found.get(f"user{number}", 0) < n
    ]


def prompts() -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(N_PROMPTS)]


def solo_answers(source: str | None, max_tokens: int) -> list[str]:
    """What each prompt is answered with when nobody else is there: one after another, nothing
    reused.
    """
    from nanochat.engine import Engine, SamplingParams

    model, tokenizer = build(source)
    engine = Engine(model, tokenizer, reuse_prefixes=False)
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts()]
    ids = [tokenizer.render_for_completion({"messages": messages}) for messages in asked]
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return [engine.complete([engine.submit(prompt, params)])[0][0].text for prompt in ids]


@dataclass
class Tally:
    """What the clients saw."""

    statuses: Counter = field(default_factory=Counter)
    finished: int = 0
    vanished: int = 0
    wrong: list[str] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    tokens: int = 0
    of_client: list[int] = field(default_factory=list)  # finished answers of each


async def one_request(
    port: int,
    number: int,
    expected: str,
    max_tokens: int,
    tally: Tally,
    *,
    vanish: bool,
    key: str | None,
) -> bool:
    """Ask, read and compare, or hang up after a third of the answer -> whether it was finished."""
    leave_after = max_tokens // 3 if vanish else 0
    reply = await ask(
        "127.0.0.1",
        port,
        chat_body(prompts()[number], max_tokens, temperature=0),
        key,
        leave_after,
    )
    tally.statuses[reply.status] += 1
    if reply.status != 200:
        await asyncio.sleep(0.2)
        return False
    tally.tokens += len(reply.piece_times_s)
    if reply.first_token_s is not None:
        tally.first_token_s.append(reply.first_token_s)
    if vanish and len(reply.piece_times_s) >= leave_after:
        tally.vanished += 1
        return False
    tally.finished += 1
    if reply.text != expected or reply.finish_reason not in ("stop", "length"):
        tally.wrong.append(
            f"prompt {number}: {reply.finish_reason} {reply.text!r} instead of {expected!r}"
        )
    return True


async def client(
    port: int,
    number: int,
    until: float,
    answers: list[str],
    max_tokens: int,
    tally: Tally,
    *,
    key: str | None,
) -> int:
    """Ask until the time is over -> how many answers were read to their end."""
    draw = random.Random(number)
    n_finished = 0
    while time.monotonic() < until:
        which = draw.randrange(N_PROMPTS)
        vanish = draw.random() < 0.2
        n_finished += await one_request(
            port, which, answers[which], max_tokens, tally, vanish=vanish, key=key
        )
    return n_finished


async def load(
    port: int,
    pid: int,
    seconds: float,
    answers: list[str],
    max_tokens: int,
    keys: list[str | None],
) -> tuple[Tally, list[tuple[float, float]]]:
    """Run a client for each key; what they saw, and (seconds, MB) of the server's memory."""
    tally, memory, start = Tally(), [], time.monotonic()
    tasks = [
        asyncio.create_task(
            client(port, number, start + seconds, answers, max_tokens, tally, key=key)
        )
        for number, key in enumerate(keys)
    ]
    while not all(task.done() for task in tasks):
        memory.append((round(time.monotonic() - start, 1), memory_mb(pid)))
        await asyncio.wait(tasks, timeout=max(0.5, seconds / 30))
    tally.of_client = list(await asyncio.gather(*tasks))
    return tally, memory


def memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def get(port: int, path: str, key: str | None) -> dict:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def settled(port: int, key: str | None) -> dict:
    """Statistics once nothing is held any more, or after SETTLE_S."""
    end = time.monotonic() + SETTLE_S
    while True:
        stats = get(port, "/stats", key)
        held = (
            stats["running"]
            + stats["waiting"]
            + stats["workers"][0]["pages_used"]
            + stats["workers"][0]["running"]
        )
        if not held or time.monotonic() > end:
            return stats
        time.sleep(0.1)


def report(
    tally: Tally, memory: list[tuple[float, float]], stats: dict, seconds: float, code: int
) -> dict:
    """The numbers and the verdicts."""
    late = [mb for at, mb in memory if at >= seconds / 3] or [mb for _, mb in memory]
    quarter = max(1, len(late) // 4)
    growth = statistics.mean(late[-quarter:]) - statistics.mean(late[:quarter])
    worker = stats["workers"][0]
    checks = {
        "no 5xx": not any(status >= 500 for status in tally.statuses),
        "every finished answer equals its solo greedy answer": not tally.wrong
        and tally.finished > 0,
        "no leaked slot": stats["running"]
        == stats["waiting"]
        == worker["running"]
        == worker["waiting"]
        == 0,
        "no leaked page": worker["pages_used"] == 0,
        "memory flat (under 5 MB from the second third on)": growth < 5,
        "exit code 0": code == 0,
    }
    return {
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "finished": tally.finished,
        "vanished": tally.vanished,
        "wrong": tally.wrong[:5],
        "tokens_per_s": round(tally.tokens / seconds, 1),
        "first_token_s": percentiles(tally.first_token_s),
        "memory_mb": {"first": memory[0][1], "last": memory[-1][1], "growth": round(growth, 2)},
        "checks": checks,
    }


def measured(args: argparse.Namespace, answers: list[str], database: str | None) -> dict:
    """Start a server, let the clients at it, stop it -> numbers and verdicts."""
    keys: list[str | None] = [None] * args.clients
    if database is not None:
        keys = list(make_accounts(database, args.clients))
    words = [sys.executable, "-m", "bench.serve_load", "--serve"]
    words += ["--max-queue", str(args.max_queue)]
    words += ["--source", args.source] if args.source else []
    words += ["--database", database] if database else []
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        port = int(next(line for line in process.stdout if line.strip().isdigit()))
        running = load(port, process.pid, args.seconds, answers, args.max_tokens, keys=keys)
        tally, memory = asyncio.run(running)
        stats = settled(port, keys[0])
        process.terminate()
        code = process.wait(timeout=60)
    finally:
        process.kill()
    result = report(tally, memory, stats, args.seconds, code)
    if database is not None:
        lost = usage_problems(database, tally.of_client)
        result["lost usage"] = lost[:5]
        result["checks"]["a row of usage for every finished answer"] = not lost
    result["settings"] = {
        "clients": args.clients,
        "seconds": args.seconds,
        "max_tokens": args.max_tokens,
        "accounts": database is not None,
    }
    return result


def compared(without: dict, with_accounts: dict) -> dict:
    """Both results, and what accounts cost."""
    share = with_accounts["tokens_per_s"] / without["tokens_per_s"]
    checks = {
        f"{name} ({kind} accounts)": passed
        for kind, result in (("without", without), ("with", with_accounts))
        for name, passed in result["checks"].items()
    }
    checks["throughput with accounts at least 0.9 of without"] = share >= 0.9
    return {
        "without": without,
        "with": with_accounts,
        "throughput with accounts over without": round(share, 3),
        "checks": checks,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument(
        "--source", help="a checkpoint, as stage:tag, instead of a tiny random model"
    )
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument(
        "--accounts", action="store_true", help="measure without accounts, then with them"
    )
    parser.add_argument("--database", help="an empty one for --accounts (default: SQLite)")
    parser.add_argument("--out", type=Path, help="write the result as JSON here too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.source, args.max_queue, args.database)
        return 0
    answers = solo_answers(args.source, args.max_tokens)
    result = measured(args, answers, None)
    if args.accounts:
        with tempfile.TemporaryDirectory() as folder:
            named = args.database or f"sqlite:///{folder}/bench.db"
            result = compared(result, measured(args, answers, named))
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if args.out:
        atomic_write(args.out, text + "\n")
    return 0 if all(result["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
