"""The plan of a GPU's memory against what a GPU takes."""

from __future__ import annotations

import pytest
import torch

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.schedule import Schedule
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.train.compiled import ForwardPass
from nanochat.train.trainer import Trainer
from nanochat.training_memory import StepShape, training_memory


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
    device, rows = torch.device("cuda"), 8
    config = GPTConfig.preset(
        generation,
        sequence_len=1024,
        vocab_size=32768,
        n_layer=8,
        n_head=4,
        n_kv_head=4,
        n_embd=512,
        window_pattern="SSSL",
    )
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    world = World(0, 0, 1, device)
    with device:
        model = GPT(config)
    model.init_weights(0)
    model.compute_dtype, model.activation_checkpointing = pick_dtype(device), checkpointing
    optimizer = Optimizer(parameter_groups(model, RECIPES[generation].optim), world)
    trainer = Trainer(
        model,
        _Random(rows, 1024, 32768, 2),
        optimizer,
        Schedule(2),
        world,
        forward=ForwardPass(model, compiled),
    )
    trainer.train_step()
    trainer.train_step()
    measured = torch.cuda.max_memory_allocated() - before
    how = {
        "checkpointing": checkpointing,
        "compiled": compiled,
        "element_bytes": model.compute_dtype.itemsize,
    }
    needs = training_memory(StepShape(config=config, rows=rows, seq_len=1024, **how))
    assert needs.peak - needs.runtime == pytest.approx(measured, rel=0.1)
