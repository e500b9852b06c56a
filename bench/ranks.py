"""The same training on 1, 2, 3 and 4 gloo processes, and on two torchrun agents with two processes
each.

`python -m bench.ranks [--steps 50]` prints each run's losses and the largest difference from one
process. The worker trains the real Trainer on generated text; every run has the same seed, the same
total batch and fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from nanochat.dataloader.documents import TextDocuments
from nanochat.dataloader.loader import PackedLoader
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.world import World, init_world
from nanochat.tokenizer import Tokenizer
from nanochat.train.trainer import Hook, StepStats, Trainer

ROOT = Path(__file__).resolve().parents[1]
ROWS, TOKENS = 12, 64
TOLERANCE = 1e-4


class Losses(Hook):
    """Remembers every step's loss; at step `stop_at` writes everything a resume needs and ends the
    run.
    """

    def __init__(self, stop_at: int | None = None, save: Path | None = None) -> None:
        self.values: list[float] = []
        self.stop_at, self.save = stop_at, save

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        self.values.append(stats.loss)
        if stats.step != self.stop_at:
            return
        trainer.stop_reason = "asked to"
        state = {"trainer": trainer.state_dict(), "optimizer": trainer.optimizer.state_dict()}
        if trainer.world.is_main and self.save:
            torch.save({**state, "model": trainer.model.state_dict()}, self.save)


def texts(n: int = 400) -> list[str]:
    """Sentences with something to learn, the same every time."""
    animals = ("cat", "dog", "owl", "fox", "hen", "bee", "cow")
    verbs = ("sees", "finds", "likes", "hears", "meets")

    def sentence(i: int, j: int) -> str:
        return f"The {animals[(i + j) % 7]} {verbs[(i * j) % 5]} the {animals[(3 * i + j) % 7]}."

    return [" ".join(sentence(i, j) for j in range(i % 9 + 1)) for i in range(n)]


def build(
    world: World, n_steps: int, generation: str = "modern", *hook: Any
) -> tuple[Trainer, Losses]:
    """A tiny model with padded vocabulary, grouped queries and odd stacks, ready to train."""
    tokenizer = Tokenizer.byte_level()
    config = GPTConfig.preset(
        generation,
        sequence_len=TOKENS,
        vocab_size=tokenizer.get_vocab_size(),
        n_layer=5,
        n_head=4,
        n_kv_head=2,
        n_embd=128,
        window_pattern="SL",
    )  # type: ignore[arg-type]
    model = GPT(config)
    model.init_weights(1)
    loader = PackedLoader(
        TextDocuments(texts()),
        tokenizer,
        rows_per_step=ROWS,
        seq_len=TOKENS,
        device_batch_size=4,
        rank=world.rank,
        world_size=world.world_size,
    )
    optimizer = Optimizer(parameter_groups(model, RECIPES[generation].optim), world)
    schedule = Schedule(n_steps, 3, n_steps // 2, 0.05, (0.85, 0.97, 0.90), n_steps, True)
    losses = Losses(*hook)
    return Trainer(model, loader, optimizer, schedule, world, [losses], grad_clip=1.0), losses


def train(world: World, args: argparse.Namespace) -> tuple[Trainer, Losses]:
    """Train in this process, from the start or from a file."""
    trainer, losses = build(world, args.steps, args.generation, args.stop_at, args.save)
    if args.resume:
        state = torch.load(args.resume, weights_only=True)
        trainer.model.load_state_dict(state["model"])
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.load_state_dict(state["trainer"])
    trainer.fit()
    return trainer, losses


def work(args: argparse.Namespace) -> None:
    """What every process does: train, and rank 0 writes the losses."""
    world = init_world("cpu")
    trainer, losses = train(world, args)
    trainer.source.close()  # type: ignore[attr-defined]
    if world.is_main:
        args.out.write_text(json.dumps({"losses": losses.values, "train_s": trainer.train_s}))
    world.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(
    n_processes: int, n_steps: int, generation: str = "modern", agents: int = 1, **flags: Any
) -> dict[str, Any]:
    """Train on `agents` torchrun agents with `n_processes` each; returns what rank 0 wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "losses.json"
        place = ["--standalone"]
        if agents > 1:
            endpoint = f"127.0.0.1:{free_port()}"
            place = [
                f"--nnodes={agents}",
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint={endpoint}",
                "--rdzv-id=ranks",
            ]
            place += ["--local-addr=127.0.0.1"]
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *place,
            f"--nproc_per_node={n_processes}",
        ]
        command += [
            "-m",
            "bench.ranks",
            "--",
            f"--out={out}",
            f"--steps={n_steps}",
            f"--generation={generation}",
        ]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        processes = [
            subprocess.Popen(
                command,
                env=env,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(agents)
        ]
        errors = [process.communicate(timeout=600)[1] for process in processes]
        if any(process.returncode for process in processes):
            raise RuntimeError("\n".join(errors)[-4000:])
        return json.loads(out.read_text())


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--generation", default="modern", choices=("modern", "classic"))
    parser.add_argument(
        "--out", type=Path, help="worker: train under torchrun and write the losses here"
    )
    parser.add_argument("--stop-at", type=int, help="worker: stop after this step and write --save")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--resume", type=Path, help="worker: go on from a --save file")
    return parser.parse_args(words)


def main() -> None:
    """Run all arrangements and print the table."""
    args = arguments()
    if args.out:
        work(args)
        return
    reference = run(1, args.steps, args.generation)["losses"]
    print(
        "| processes | first loss | last loss | largest difference | seconds |\n"
        "|---|---|---|---|---|"
    )
    for agents, each in ((1, 1), (1, 2), (1, 3), (1, 4), (2, 2)):
        result = run(each, args.steps, args.generation, agents)
        losses = result["losses"]
        worst = max(abs(a - b) for a, b in zip(losses, reference, strict=True))
        name = f"{agents} agents x {each}" if agents > 1 else str(each)
        print(
            f"| {name} | {losses[0]:.5f} | {losses[-1]:.5f} | {worst:.1e} | "
            f"{result['train_s']:.1f} |",
            flush=True,
        )
        if worst > TOLERANCE:
            raise SystemExit(
                f"{name} processes: losses differ from one by {worst:.1e}, more than {TOLERANCE:g}"
            )


if __name__ == "__main__":
    main()
