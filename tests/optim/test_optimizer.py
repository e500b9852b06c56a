"""The optimizer as one object: states that come back, stacks worked on in parts, gradients scaled
in between.
"""

from __future__ import annotations

import copy

import pytest
import torch

from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import optimizer as module
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.shard import StackShard, TableShard
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))


def build(generation: str = "modern", n_layer: int = 3) -> tuple[GPT, Optimizer]:
    model = GPT(
        GPTConfig.preset(
            generation,
            sequence_len=16,
            vocab_size=70,
            n_layer=n_layer,
            n_head=2,
            n_kv_head=1,
            n_embd=32,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    return model, Optimizer(parameter_groups(model, RECIPES[generation].optim), ALONE)


def fill(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def run(model: GPT, optimizer: Optimizer, seeds: range) -> None:
    for seed in seeds:
        fill(model, seed)
        optimizer.step(0.5, 0.9, 0.3)
        optimizer.zero_grad()


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_states_come_back(generation, tmp_path):
    whole, optimizer = build(generation)
    run(whole, optimizer, range(6))
    first, half = build(generation)
    run(first, half, range(3))
    torch.save({"model": first.state_dict(), "optimizer": half.state_dict()}, tmp_path / "s.pt")
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    second, other = build(generation)
    second.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    run(second, other, range(3, 6))
    for (name, a), b in zip(whole.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_loading_does_not_tie_two_optimizers_together():
    model, first = build()
    run(model, first, range(2))
    before = copy.deepcopy(first.state_dict())
    other_model, second = build()
    second.load_state_dict(first.state_dict())
    run(other_model, second, range(2))
    assert torch.equal(before["state"]["head"][0]["exp_avg"], first.state["head"][0]["exp_avg"])


def test_states_of_another_model_are_refused():
    _, modern = build()
    _, classic = build("classic")
    with pytest.raises(ValueError, match="does not fit the model.*unknown groups"):
        classic.load_state_dict(modern.state_dict())
    deep_model, deep = build(n_layer=5)
    run(deep_model, deep, range(1))
    with pytest.raises(ValueError, match="tensors where this model has"):
        modern.load_state_dict(deep.state_dict())
    wide = deep.state_dict()
    wide["state"]["value_embeds"] = wide["state"]["value_embeds"][:2]
    with pytest.raises(ValueError, match="rows where this model has"):
        modern.load_state_dict(wide)


def test_a_stack_worked_on_in_parts_moves_the_same(monkeypatch):
    whole, optimizer = build(n_layer=5)
    run(whole, optimizer, range(4))
    monkeypatch.setattr(module, "MUON_ELEMENTS", 2 * 32 * 32)
    parts, other = build(n_layer=5)
    run(parts, other, range(4))
    for (name, a), b in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(a, b[1], atol=1e-5, rtol=1e-4, msg=name)
    for name, states in optimizer.state.items():
        assert [s.keys() for s in states] == [s.keys() for s in other.state[name]], name


def test_reduced_gradients_are_what_step_uses():
    """Scaling them in place scales the update; the parameters' own are gone, so nothing is held
    twice.
    """
    model, optimizer = build("classic")
    fill(model, 0)
    wanted = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    grads = optimizer.reduce_gradients()
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.grad_norm() == pytest.approx(float(wanted), rel=1e-5)
    torch._foreach_mul_(grads, 0.5)
    assert optimizer.grad_norm() == pytest.approx(float(wanted) / 2, rel=1e-5)
    optimizer.step(1.0, 0.9)
    assert optimizer.state["head"][0]["exp_avg"].norm() > 0
    fill(model, 0)
    optimizer.reduce_gradients()
    optimizer.zero_grad()
    assert optimizer.shards["head"][0].grad is None  # a skipped step leaves nothing behind


def test_missing_gradients_count_as_zero():
    model, optimizer = build()
    optimizer.step(1.0, 0.9)
    assert optimizer.n_updates == 1
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("stacked", [False, True])
def test_parts_of_all_ranks_cover_everything_once(n_ranks, stacked):
    parameters = [torch.randn(40, 300) for _ in range(7)] if stacked else [torch.randn(101, 300)]
    whole = torch.stack(parameters) if stacked else parameters[0]
    shards = [
        (StackShard if stacked else TableShard)(
            parameters, World(rank, rank, n_ranks, torch.device("cpu"))
        )
        for rank in range(n_ranks)
    ]
    together = torch.cat([shard.own_parameters() for shard in shards])
    assert torch.equal(together[: len(whole)], whole) and not together[len(whole) :].any()
    assert len({shard.n_own for shard in shards}) == 1, "collectives need parts of one size"
    for shard in shards:
        shard.load_full_state({"exp_avg": whole})
    assert torch.equal(torch.cat([shard.state["exp_avg"] for shard in shards])[: len(whole)], whole)
