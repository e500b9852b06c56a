"""How much of training time saving costs: a 100M-parameter model, one save a minute.

    python -m bench.save_stall --minutes 3

Reported: how long the loop stood still for each save (copying the state), and how much slower steps
were while the file was being written behind it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from nanochat.cost import checkpoint_bytes
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.saving import SaveHook
from nanochat.train.trainer import Hook, StepStats, Trainer


class RandomTokens:
    """A source that needs no data."""

    def __init__(self, rows: int, config: GPTConfig) -> None:
        ids = torch.randint(0, config.vocab_size, (rows, config.sequence_len + 1))
        self.batch = Batch(
            ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(rows, config.sequence_len)
        )

    def next_step(self) -> list[Batch]:
        return [self.batch]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, states: Any) -> None: ...


class Clock(Hook):
    """Notes how long each step took and whether a save was being written meanwhile; ends the run in
    time.
    """

    def __init__(self, saver: SaveHook, seconds: float) -> None:
        self.saver, self.until = saver, time.monotonic() + seconds
        self.quiet: list[float] = []
        self.writing: list[float] = []
        self.n_saves, self.last_pending = 0, None

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        pending = self.saver._pending
        if trainer.step > 2:
            (
                self.writing if pending is not None and pending is self.last_pending else self.quiet
            ).append(stats.seconds)
        self.n_saves += pending is not None and pending is not self.last_pending
        self.last_pending = pending
        if time.monotonic() > self.until:
            trainer.stop_reason = "time is up"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--every-s", type=float, default=60.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=4)
    args = parser.parse_args()
    device = torch.device(args.device)
    config = GPTConfig(
        sequence_len=512 if device.type == "cpu" else 2048,
        vocab_size=32768,
        n_layer=12,
        n_head=6,
        n_kv_head=6,
        n_embd=512 + 64 * 4,
    )
    model = GPT(config).to(device)
    model.init_weights(0)
    model.compute_dtype = pick_dtype(device)
    world = World(0, 0, 1, device)
    groups = parameter_groups(model, RECIPES["classic"].optim)
    with tempfile.TemporaryDirectory(prefix="nanochat-stall-") as folder:
        saver = SaveHook(
            Path(folder),
            {"model_config": config.to_dict()},
            every=-1,
            every_s=args.every_s,
            keep=2,
        )
        clock = Clock(saver, 60 * args.minutes)
        optimizer, schedule = Optimizer(groups, world), Schedule(10**6)
        trainer = Trainer(
            model, RandomTokens(args.rows, config), optimizer, schedule, world, [saver, clock]
        )
        started = time.monotonic()
        trainer.fit()
        wall_s = time.monotonic() - started
        shutil.rmtree(folder, ignore_errors=True)
        Path(folder).mkdir()
    quiet = statistics.mean(clock.quiet or clock.writing or [0.0])
    writing_s = sum(clock.writing)
    slower_s = sum(max(0.0, seconds - quiet) for seconds in clock.writing)
    n_saves = max(1, clock.n_saves)
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "checkpoint_gb": round(checkpoint_bytes(config) / 1e9, 2),
        "saves": clock.n_saves,
        "wall_s": round(wall_s, 1),
        "step_s": round(quiet, 3),
        "stall_s_per_save": round(saver.stall_s / n_saves, 3),
        "stall_percent_at_one_a_minute": round(100 * saver.stall_s / n_saves / 60, 2),
        "steps_while_writing_s_per_save": round(writing_s / n_saves, 2),
        "slower_while_writing_s_per_save": round(slower_s / n_saves, 2),
        "all_percent_at_one_a_minute": round(100 * (saver.stall_s + slower_s) / n_saves / 60, 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
