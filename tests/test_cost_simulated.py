"""The plan of a GPU's memory against the same step on shapes alone, and against a GPU where there
is one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanochat.cost import memory
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups, published_settings
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.compiled import hidden_function
from nanochat.train.trainer import Trainer


@pytest.fixture(autouse=True)
def _bench(monkeypatch):
    """`bench/` is no part of the installed package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1]))


def planned(config: GPTConfig, rows: int, seq_len: int, **how: object) -> int:
    needs = memory(config, rows, seq_len, **how)  # type: ignore[arg-type]
    return needs.peak - needs.runtime


def shape(generation: str, n_layer: int, vocab_size: int) -> GPTConfig:
    return GPTConfig(512, vocab_size, n_layer, 2, 2, 256, "SSSL", generation)  # type: ignore[arg-type]


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("micro_batches, world_size", [(1, 1), (2, 8)])
@pytest.mark.parametrize("n_layer, rows, vocab_size", [(3, 8, 16384), (5, 32, 2048), (5, 2, 8192)])
def test_plan_is_the_simulated_step(
    generation, checkpointing, micro_batches, world_size, n_layer, rows, vocab_size
):
    """Shapes whose fullest moment is at the head, in the backward pass, and where little but
    weights is there.
    """
    from bench.simulate import simulate

    config = shape(generation, n_layer, vocab_size)
    how = {"checkpointing": checkpointing, "micro_batches": micro_batches, "world_size": world_size}
    assert planned(config, rows, 512, **how) == pytest.approx(
        simulate(config, rows, 512, **how).peak, rel=0.1
    )


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_plan_is_the_simulated_step_compiled(generation):
    """What the compiler's own partitioner keeps for the backward pass."""
    module = pytest.importorskip(
        "bench.simulate_compiled", exc_type=ImportError, reason="this torch has other internals"
    )
    config = shape(generation, 2, 4096)
    simulated = module.simulate_compiled(config, 16, 512, micro_batches=1).peak
    assert planned(config, 16, 512, micro_batches=1, compiled=True) == pytest.approx(
        simulated, rel=0.1
    )


def test_gradients_of_a_compiled_pass_come_together():
    """With few tokens the fullest moment is the end of the pass, where they are beside those of
    earlier ones.
    """
    config = shape("modern", 8, 8192)
    few, eager = (
        planned(config, 1, 128, checkpointing=True, compiled=compiled) for compiled in (True, False)
    )
    assert few > eager + 4 * 8 * 12 * 256**2 * 0.5


class _Random:
    def __init__(self, rows: int, seq_len: int, vocab_size: int, n_batches: int) -> None:
        self.shape, self.vocab_size, self.n_batches = (rows, seq_len), vocab_size, n_batches

    def next_step(self) -> list[Batch]:
        ids = [torch.randint(0, self.vocab_size, self.shape) for _ in range(self.n_batches)]
        return [Batch(i, i, torch.ones(self.shape)) for i in ids]

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, states) -> None:
        pass


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: measures what the plan predicts"
)
@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_plan_is_what_a_gpu_takes(generation, compiled, checkpointing):
    device, config, rows = (
        torch.device("cuda"),
        GPTConfig(1024, 32768, 8, 4, 4, 512, "SSSL", generation),
        8,
    )
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    world = World(0, 0, 1, device)
    with device:
        model = GPT(config)
    model.init_weights(0)
    model.compute_dtype, model.activation_checkpointing = pick_dtype(device), checkpointing
    optimizer = Optimizer(parameter_groups(model, published_settings(generation)), world)
    trainer = Trainer(
        model,
        _Random(rows, 1024, 32768, 2),
        optimizer,
        Schedule(2),
        world,
        hidden_fn=hidden_function(model, compiled, 0),
    )
    trainer.train_step()
    trainer.train_step()
    measured = torch.cuda.max_memory_allocated() - before
    how = {
        "checkpointing": checkpointing,
        "compiled": compiled,
        "element_bytes": model.compute_dtype.itemsize,
    }
    assert planned(config, rows, 1024, **how) == pytest.approx(measured, rel=0.1)
