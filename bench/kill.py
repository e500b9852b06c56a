"""Kill a training run with signal 9 again and again, resume it every time, and compare with a run
left alone.

    python -m bench.kill --rounds 200
    python -m bench.kill --rounds 30 --ranks 2

Checked after every kill: each complete step loads with its SHA-256 right, no step that was reported
saved is gone, and the next run goes on exactly there. Checked at the end: weights, optimizer states
and the loss of every step are bit for bit those of the uninterrupted run. Saves are slowed down so
that most kills hit one; with two ranks either or both are killed, and a survivor has to end by
itself. Rounds are forked from this process, which has imported torch already.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from nanochat.checkpoint_manager import complete_steps, load_checkpoint
from nanochat.dataset.shards import write_shards
from nanochat.runtime import tensor_files
from nanochat.runtime.rank_watch import EXIT_LOST_RANK
from nanochat.runtime.world import init_world
from nanochat.tokenizer import Tokenizer
from nanochat.train import saving, stages
from nanochat.train.configs import BaseConfig
from nanochat.train.trainer import Trainer

STEPS_PER_ROUND = {1: 12, 2: 40}
SURVIVOR_LIMIT_S = 30.0
EXIT_ALONE = 2  # killed so early that the other could not join
WORDS = "the sun moon river stone bird tree wind sings runs falls over under bright".split()


def make_data(base: Path) -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(4, 30))) + "." for _ in range(600)]
    Tokenizer.byte_level().save(base / "tokenizer")
    about = {"kind": "own text", "source": "bench", "licence": "none"}
    write_shards(base / "base_data", texts[:550], texts[550:], **about)


def settings(n_steps: int, resume: bool) -> BaseConfig:
    return BaseConfig(
        generation="modern",
        depth=2,
        aspect_ratio=16,
        head_dim=16,
        max_seq_len=32,
        device_batch_size=2,
        total_batch_size=128,
        num_iterations=n_steps,
        eval_every=50,
        eval_tokens=256,
        sample_every=0,
        core_metric_every=-1,
        model_tag="t",
        device_type="cpu",
        window_pattern="L",
        save_every=10,
        resume=resume,
        compile=False,
    )


def slow_saves(seed: int, report: int) -> None:
    """In the child: make every part of a save last long enough to be hit, and say which saves are
    complete.
    """
    rng = random.Random(seed)
    write, replace, fsync, save = (
        tensor_files._Hashing.write,
        os.replace,
        os.fsync,
        saving.save_checkpoint,
    )

    def slowly(function: Any, longest_s: float) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            time.sleep(rng.uniform(0, longest_s))
            return function(*arguments, **options)

        return wrapper

    def reported(directory: Path, step: int, *rest: Any) -> Path:
        path = save(directory, step, *rest)
        os.write(report, f"saved {step}\n".encode())
        return path

    tensor_files._Hashing.write = slowly(write, 0.0005)  # type: ignore[method-assign]
    os.replace, os.fsync = slowly(replace, 0.02), slowly(fsync, 0.02)  # type: ignore[assignment]
    saving.save_checkpoint = reported  # type: ignore[assignment]


def child(base: Path, cfg: BaseConfig, env: dict[str, str], seed: int | None, report: int) -> None:
    """What a forked process does: one training run. Never returns."""
    code = 1
    try:
        os.environ.update(env, NANOCHAT_BASE_DIR=str(base))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if "KILL_VERBOSE" not in os.environ:
            os.dup2(null, 2)
        if seed is not None:
            slow_saves(seed, report)
        first = Trainer.train_step

        def announced(trainer: Trainer) -> Any:
            Trainer.train_step = first  # type: ignore[method-assign]
            os.write(report, f"at {trainer.step}\n".encode())
            return first(trainer)

        Trainer.train_step = announced  # type: ignore[method-assign]
        world = init_world("cpu")
        stages.base(cfg, world)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


class Round:
    """The processes of one run, forked; `messages` is what rank 0 reported."""

    def __init__(self, base: Path, cfg: BaseConfig, ranks: int, seed: int | None) -> None:
        self.pipe, write_end = os.pipe()
        port = free_port() if ranks > 1 else 0
        self.pids: list[int] = []
        for rank in range(ranks):
            env = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_PORT": str(port),
            }
            env |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(ranks)} if ranks > 1 else {}
            pid = os.fork()
            if pid == 0:
                os.close(self.pipe)
                report = write_end if rank == 0 else os.open(os.devnull, os.O_WRONLY)
                child(base, cfg, env if ranks > 1 else {}, seed, report)
            self.pids.append(pid)
        os.close(write_end)
        self.codes: dict[int, int] = {}

    def wait(self, seconds: float) -> bool:
        """Wait until all have ended, at most `seconds` -> whether they have."""
        until = time.monotonic() + seconds
        while len(self.codes) < len(self.pids):
            for rank, pid in enumerate(self.pids):
                if rank not in self.codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    self.codes[rank] = os.waitstatus_to_exitcode(ended[1])
            if len(self.codes) < len(self.pids):
                if time.monotonic() >= until:
                    return False
                time.sleep(0.005)
        return True

    def kill(self, ranks: list[int]) -> None:
        for rank in ranks:
            if rank not in self.codes:
                os.kill(self.pids[rank], signal.SIGKILL)

    def messages(self) -> list[tuple[str, int]]:
        """What was reported, once all have ended."""
        with os.fdopen(self.pipe, "rb") as file:
            lines = file.read().decode().splitlines()
        return [(line.split()[0], int(line.split()[1])) for line in lines if len(line.split()) == 2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Harness:
    """The killed run beside the reference, and what was counted."""

    def __init__(self, folder: Path, rounds: int, ranks: int, seed: int) -> None:
        self.folder, self.ranks, self.rng = folder, ranks, random.Random(seed)
        self.n_steps = max(30, rounds * STEPS_PER_ROUND.get(ranks, 40))
        self.base, self.reference = folder / "killed", folder / "reference"
        self.directory = self.base / "base_checkpoints" / "t"
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.survivor_s: list[float] = []
        self.known = 0  # newest step known to be complete
        for base in (self.base, self.reference):
            make_data(base)

    def run_reference(self) -> float:
        started = time.monotonic()
        run = Round(self.reference, settings(self.n_steps, False), self.ranks, None)
        run.wait(600)
        if set(run.codes.values()) != {0}:
            raise SystemExit(f"the uninterrupted run failed: exit codes {run.codes}")
        return time.monotonic() - started

    def one(self, number: int, kill: bool = True) -> None:
        """One round: start or resume, kill at a random instant, look at what is there."""
        run = Round(self.base, settings(self.n_steps, True), self.ranks, number)
        victims = self.rng.choice([[0, 1], [0], [1]])[: self.ranks] if self.ranks > 1 else [0]
        longest = 1.8 if self.ranks == 1 else 4.0
        if run.wait(self.rng.uniform(0.02, longest) if kill else 600):
            self.counts["ended before the kill"] += kill
        else:
            run.kill(victims)
            killed = time.monotonic()
            if not run.wait(SURVIVOR_LIMIT_S):
                self.problems.append(
                    f"round {number}: a survivor of rank {victims} still ran after "
                    f"{SURVIVOR_LIMIT_S} s"
                )
                run.kill(list(range(self.ranks)))
                run.wait(10)
            elif len(victims) < self.ranks:
                self.survivor_s.append(time.monotonic() - killed)
            self.counts.update({"kills": 1, "kills during a save": int(self.unfinished())})
        bad = {
            c
            for c in run.codes.values()
            if c not in (0, -signal.SIGKILL, EXIT_LOST_RANK, EXIT_ALONE)
        }
        if bad:
            self.problems.append(f"round {number}: exit codes {run.codes}")
        self.inspect(number, run.messages())

    def unfinished(self) -> bool:
        names = (
            {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()
        )
        tensors = {
            name.split("_")[1].split(".")[0]
            for name in names
            if name.startswith(("model_", "optim_"))
        }
        metas = {name.split("_")[1].split(".")[0] for name in names if name.startswith("meta_")}
        return bool(tensors - metas) or any(name.startswith(".") for name in names)

    def inspect(self, number: int, messages: list[tuple[str, int]]) -> None:
        for kind, step in messages:
            if kind == "at" and step != self.known:
                self.problems.append(
                    f"round {number}: went on after step {step} instead of {self.known}"
                )
            self.known = max(self.known, step) if kind == "saved" else self.known
        steps = complete_steps(self.directory)
        for step in steps:
            try:
                load_checkpoint(self.directory, step, "cpu", load_optimizer=True)
            except ValueError as error:
                self.problems.append(f"round {number}: {error}")
        newest = steps[-1] if steps else 0
        if newest < self.known:
            self.problems.append(f"round {number}: step {self.known} was saved, newest is {newest}")
        self.known = newest

    def start_over(self) -> None:
        """The run is finished though rounds are left: compare it and begin another."""
        self.one(-1, kill=False)
        self.compare()
        shutil.rmtree(self.directory)
        self.known = 0

    def compare(self) -> None:
        """The finished run against the uninterrupted one."""
        self.counts["runs completed and compared"] += 1
        ours = load_checkpoint(self.directory, self.n_steps, "cpu", load_optimizer=True)
        theirs = load_checkpoint(
            self.reference / "base_checkpoints" / "t", self.n_steps, "cpu", load_optimizer=True
        )
        for name, mine, other in (
            ("weights", ours[0], theirs[0]),
            ("optimizer", ours[1], theirs[1]),
        ):
            if not equal(mine, other):
                self.problems.append(f"the final {name} differ from those of the uninterrupted run")
        mine, other = losses(self.directory), losses(self.reference / "base_checkpoints" / "t")
        if mine != other:
            self.problems.append(f"the logs differ: {len(mine)} and {len(other)} rows of losses")


def losses(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # no thread pool in this process: it is forked
    os.environ.update(OMP_NUM_THREADS="1", NANOCHAT_DTYPE="float32")
    os.environ.update(NANOCHAT_HEARTBEAT_S="4", NANOCHAT_DIST_TIMEOUT_S="20")
    with tempfile.TemporaryDirectory(prefix="nanochat-kill-") as folder:
        harness = Harness(Path(folder), args.rounds, args.ranks, args.seed)
        took = harness.run_reference()
        print(
            f"{harness.n_steps} steps on {args.ranks} rank(s), uninterrupted in {took:.1f} s",
            flush=True,
        )
        started = time.monotonic()
        for number in range(args.rounds):
            harness.one(number)
            if harness.known == harness.n_steps:
                harness.start_over()
            if number % 10 == 9:
                print(
                    f"round {number + 1}: at step {harness.known}, {dict(harness.counts)}",
                    flush=True,
                )
        harness.one(args.rounds, kill=False)
        harness.compare()
        result = {
            "ranks": args.ranks,
            "rounds": args.rounds,
            **harness.counts,
            "steps": harness.n_steps,
            "seconds_per_round": round((time.monotonic() - started) / (args.rounds + 1), 2),
            "survivor_ended_within_s": round(max(harness.survivor_s, default=0.0), 1),
            "problems": harness.problems,
        }
    print(json.dumps(result, indent=1))
    return 1 if harness.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
