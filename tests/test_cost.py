"""The arithmetic of cost against real modules and their optimizer."""

from __future__ import annotations

import pytest
import torch

from nanochat.cost import checkpoint_bytes, count_parameters, flops_per_token, kv_cache_bytes
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.optim.training_recipe import RECIPES
from nanochat.runtime.chips import CHIPS, find_chip, gpu_rate
from nanochat.runtime.world import World

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


def test_chips():
    assert (
        find_chip("NVIDIA H100 80GB HBM3").name == "H100"
        and find_chip("NVIDIA A100-SXM4-40GB").memory_gb == 40
    )
    assert find_chip("NVIDIA GeForce RTX 4090").memory_gb == 24 and find_chip("Unheard Of") is None
    assert gpu_rate("Tesla T4") == 0.4 and len({chip.name for chip in CHIPS}) == len(CHIPS)


@pytest.mark.parametrize(
    "name, tflops",
    {
        "Tesla T4": 65,
        "Tesla V100-SXM2-32GB": 112,
        "NVIDIA A100-SXM4-80GB": 312,
        "NVIDIA H100 80GB HBM3": 989,
        "NVIDIA H200": 989,
        "NVIDIA L4": 121,
        "NVIDIA GeForce RTX 4090": 165,
        "AMD Instinct MI300X": 1307,
        "NVIDIA A30": 165,
    }.items(),
)
def test_the_peak_of_common_chips_is_known(name, tflops):
    """Else their runs log no MFU."""
    assert find_chip(name).tflops == tflops


def test_every_chip_has_a_peak():
    assert [chip.name for chip in CHIPS if not chip.tflops] == []
