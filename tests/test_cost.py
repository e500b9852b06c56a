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
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.chips import CHIPS, find_chip, gpu_rate
from nanochat.runtime.world import World
from nanochat.train.derive import shape_for_depth

D20 = GPTConfig.preset(
    "modern",
    sequence_len=2048,
    vocab_size=32768,
    n_layer=20,
    n_head=10,
    n_kv_head=10,
    n_embd=1280,
    window_pattern="SSSL",
)


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("n_layer, n_kv_head", [(1, 2), (4, 1), (5, 2)])
def test_parameters_states_and_checkpoint_equal_a_real_model(generation, n_layer, n_kv_head):
    config = GPTConfig.preset(
        generation,
        sequence_len=32,
        vocab_size=100,
        n_layer=n_layer,
        n_head=2,
        n_kv_head=n_kv_head,
        n_embd=64,
        window_pattern="SL",
    )
    model, counts = GPT(config), count_parameters(config)
    model.init_weights(0)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.matrices == sum(p.numel() for p in model.transformer["h"].parameters())
    world = World(0, 0, 1, torch.device("cpu"))
    optimizer = Optimizer(parameter_groups(model, RECIPES[generation].optim), world)
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
    shallow, deep = (
        GPTConfig.preset(
            generation,
            sequence_len=256,
            vocab_size=64,
            n_layer=n,
            n_head=2,
            n_kv_head=1,
            n_embd=256,
            window_pattern="L",
        )
        for n in (4, 6)
    )
    saved = (saved_bytes(deep, 256, checkpointing) - saved_bytes(shallow, 256, checkpointing)) / 2
    casts = 2 * (count_parameters(deep).matrices - count_parameters(shallow).matrices) / 2
    full, kept = activation_bytes(deep, 2, norm_bytes=4)
    predicted = 256 * kept if checkpointing else 256 * full + casts
    assert saved == pytest.approx(predicted, rel=0.03)


def test_flops_by_hand():
    classic = GPTConfig(
        sequence_len=2048, vocab_size=65536, n_layer=20, n_head=10, n_kv_head=10, n_embd=1280
    )
    matrices = 20 * 12 * 1280**2 + 1280 * 65536
    assert flops_per_token(classic) == 6 * matrices + 12 * 20 * 10 * 128 * 2048
    assert flops_per_token(D20) < flops_per_token(
        GPTConfig.preset(
            "modern",
            sequence_len=2048,
            vocab_size=32768,
            n_layer=20,
            n_head=10,
            n_kv_head=10,
            n_embd=1280,
            window_pattern="L",
        )
    )
    assert flops_per_token(D20, seq_len=128) < flops_per_token(D20)
    assert kv_cache_bytes(classic, 2048) == 2 * 20 * 1280 * 2048 * 2


@pytest.mark.parametrize("generation, vocab_size", [("modern", 32768), ("classic", 65536)])
def test_d20_trains_in_24_gb(generation, vocab_size):
    shape = shape_for_depth(20)
    config = GPTConfig.preset(
        generation,
        sequence_len=2048,
        vocab_size=vocab_size,
        n_layer=20,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        n_embd=shape.n_embd,
        window_pattern="L",
    )
    rows, checkpointing = fitting_rows(config, 256, 2048, 0.95 * 24 * GIB)
    assert rows >= 2 and not checkpointing and memory(config, rows, 2048).peak <= 0.95 * 24 * GIB


def test_small_cards_take_small_models():
    d12 = GPTConfig.preset(
        "modern",
        sequence_len=2048,
        vocab_size=32768,
        n_layer=12,
        n_head=6,
        n_kv_head=6,
        n_embd=768,
        window_pattern="L",
    )
    for gb in (6, 8, 12, 16):
        rows, _ = fitting_rows(d12, 256, 2048, gb * 0.95 * GIB)
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
    config = GPTConfig.preset(
        "modern",
        sequence_len=1024,
        vocab_size=5000,
        n_layer=depth,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        n_embd=shape.n_embd,
        window_pattern="L",
    )
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


def test_gradients_of_a_compiled_pass_come_together():
    """With few tokens the fullest moment is the end of the pass, where they are beside those of
    earlier ones.
    """
    config = GPTConfig.preset(
        "modern",
        sequence_len=512,
        vocab_size=8192,
        n_layer=8,
        n_head=2,
        n_kv_head=2,
        n_embd=256,
    )
    few, eager = (
        memory(config, 1, 128, checkpointing=True, compiled=compiled).peak
        for compiled in (True, False)
    )
    assert few > eager + 4 * 8 * 12 * 256**2 * 0.5


# Allocated GiB of a step simulated on shapes alone (docs/reliability.md): preset, depth, rows of
# 2,048 tokens, vocabulary, windows; then eager, eager with checkpointing, compiled, both.
SIMULATED = {
    ("classic", 12, 8, 65536, "L"): (8.57, 3.62, 8.55, 3.80),
    ("classic", 20, 4, 65536, "L"): (15.77, 8.37, 15.75, 8.80),
    ("modern", 12, 16, 32768, "SSSL"): (16.11, 6.97, 16.00, 7.16),
    ("modern", 20, 4, 32768, "SSSL"): (21.25, 13.73, 21.12, 15.54),
}


@pytest.mark.parametrize("case", SIMULATED)
def test_the_plan_of_a_gpu_is_the_simulated_step(case):
    name, depth, rows, vocab_size, windows = case
    shape = shape_for_depth(depth)
    config = GPTConfig.preset(
        name,
        sequence_len=2048,
        vocab_size=vocab_size,
        n_layer=depth,
        n_head=shape.n_head,
        n_kv_head=shape.n_head,
        n_embd=shape.n_embd,
        window_pattern=windows,
    )
    ways = [(compiled, checkpointing) for compiled in (False, True) for checkpointing in (0, 1)]
    for (compiled, checkpointing), simulated in zip(ways, SIMULATED[case], strict=True):
        needs = memory(config, rows, 2048, compiled=compiled, checkpointing=bool(checkpointing))
        assert (needs.peak - needs.runtime) / GIB == pytest.approx(simulated, rel=0.04)
