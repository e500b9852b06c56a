"""The arithmetic of cost against the thing itself: parameters of real modules, tensors that
autograd really saves.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.cost import (
    GIB,
    activation_bytes,
    checkpoint_bytes,
    count_parameters,
    fitting_rows,
    flops_per_token,
    kv_cache_bytes,
    memory,
)
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups, published_settings
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.chips import CHIPS, find_chip, gpu_rate
from nanochat.runtime.world import World
from nanochat.train.scaling import shape_for_depth

D20 = GPTConfig(2048, 32768, 20, 10, 10, 1280, "SSSL", "modern")


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("n_layer, n_kv_head", [(1, 2), (4, 1), (5, 2)])
def test_parameters_states_and_checkpoint_equal_a_real_model(generation, n_layer, n_kv_head):
    config = GPTConfig(32, 100, n_layer, 2, n_kv_head, 64, "SL", generation)
    model, counts = GPT(config), count_parameters(config)
    model.init_weights(0)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.matrices == sum(p.numel() for p in model.transformer["h"].parameters())
    world = World(0, 0, 1, torch.device("cpu"))
    optimizer = Optimizer(parameter_groups(model, published_settings(generation)), world)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(0.1, 0.9)
    kept = sum(
        t.numel()
        for states in optimizer.state.values()
        for s in states
        for n, t in s.items()
        if n != "second"
    )
    assert counts.state_elements == kept
    assert (
        checkpoint_bytes(config) == 4 * (counts.total + kept)
        and checkpoint_bytes(config, False) == 4 * counts.total
    )


def saved_bytes(config: GPTConfig, n_tokens: int, checkpointing: bool) -> int:
    """What autograd keeps of a bf16 forward pass, each storage once, parameters left out."""
    model = GPT(config)
    model.init_weights(0)
    model.compute_dtype, model.activation_checkpointing = torch.bfloat16, checkpointing
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.hidden(torch.zeros(1, n_tokens, dtype=torch.long))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_saves(generation, checkpointing):
    """Difference of two depths: what a layer adds, without what the ends of the model take."""
    shallow, deep = (GPTConfig(256, 64, n, 2, 1, 256, "L", generation) for n in (4, 6))
    saved = (saved_bytes(deep, 256, checkpointing) - saved_bytes(shallow, 256, checkpointing)) / 2
    casts = 2 * (count_parameters(deep).matrices - count_parameters(shallow).matrices) / 2
    full, kept = activation_bytes(deep, 2, norm_bytes=4)
    predicted = 256 * kept if checkpointing else 256 * full + casts
    assert saved == pytest.approx(predicted, rel=0.03)


def test_flops_by_hand():
    classic = GPTConfig(2048, 65536, 20, 10, 10, 1280, "L", "classic")
    matrices = 20 * 12 * 1280**2 + 1280 * 65536
    assert flops_per_token(classic) == 6 * matrices + 12 * 20 * 10 * 128 * 2048
    assert flops_per_token(D20) < flops_per_token(
        GPTConfig(2048, 32768, 20, 10, 10, 1280, "L", "modern")
    )
    assert flops_per_token(D20, seq_len=128) < flops_per_token(D20)
    assert kv_cache_bytes(classic, 2048) == 2 * 20 * 1280 * 2048 * 2


@pytest.mark.parametrize("generation, vocab_size", [("modern", 32768), ("classic", 65536)])
def test_d20_trains_in_24_gb(generation, vocab_size):
    shape = shape_for_depth(20)
    config = GPTConfig(
        2048, vocab_size, 20, shape.n_head, shape.n_head, shape.n_embd, "L", generation
    )
    rows, checkpointing = fitting_rows(config, 256, 2048, 0.95 * 24 * GIB)
    assert rows >= 2 and not checkpointing and memory(config, rows, 2048).peak <= 0.95 * 24 * GIB


def test_small_cards_take_small_models():
    d12 = GPTConfig(2048, 32768, 12, 6, 6, 768, "L", "modern")
    for gb in (6, 8, 12, 16):
        rows, checkpointing = fitting_rows(d12, 256, 2048, gb * 0.95 * GIB)
        assert rows >= 1, gb
    assert fitting_rows(D20, 256, 2048, 4 * GIB) == (0, True)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 64),
    ranks=st.integers(1, 8),
    depth=st.integers(1, 30),
    element=st.sampled_from([2, 4]),
)
def test_memory_grows_and_shrinks_as_it_should(rows, ranks, depth, element):
    shape = shape_for_depth(depth)
    config = GPTConfig(1024, 5000, depth, shape.n_head, shape.n_head, shape.n_embd)
    here = memory(config, rows, 1024, world_size=ranks, element_bytes=element)
    assert (
        memory(config, rows + 1, 1024, world_size=ranks, element_bytes=element).activations
        > here.activations
    )
    assert (
        memory(config, rows, 1024, world_size=ranks + 1, element_bytes=element).optimizer
        < here.optimizer
    )
    if depth > 1:
        saving = memory(
            config, rows, 1024, world_size=ranks, element_bytes=element, checkpointing=True
        )
        assert saving.activations < here.activations
    assert (
        here.peak
        < memory(
            config, rows, 1024, world_size=ranks, element_bytes=element, device_type="cuda"
        ).peak
        + 1
    )
    assert "peak" in here.table()


def test_chips():
    assert (
        find_chip("NVIDIA H100 80GB HBM3").name == "H100"
        and find_chip("NVIDIA A100-SXM4-40GB").memory_gb == 40
    )
    assert find_chip("NVIDIA GeForce RTX 4090").memory_gb == 24 and find_chip("Unheard Of") is None
    assert gpu_rate("Tesla T4") == 0.4 and len({chip.name for chip in CHIPS}) == len(CHIPS)
