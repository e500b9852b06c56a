"""`--depth` alone: published sizes, monotone formulas, powers of two."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.gpt import GPT, GPTConfig
from nanochat.train.configs import BaseConfig
from nanochat.train.derive import (
    batch_tokens,
    lr_scales,
    pretraining,
    scaling_params,
    shape_for_depth,
    weight_decay_scale,
)

REFERENCE = 12 * scaling_params(12, 32768)


@pytest.mark.parametrize("depth, millions", [(20, 561), (26, 1082), (32, 1880), (34, 2200)])
def test_published_sizes(depth, millions):
    """The public classic checkpoints, vocabulary 65,536: d20 561M, d32 1.9B, d34 2.2B; d26 lies
    between.
    """
    shape = shape_for_depth(depth)
    with torch.device("meta"):
        model = GPT(
            GPTConfig(
                sequence_len=2048,
                vocab_size=2**16,
                n_layer=depth,
                n_head=shape.n_head,
                n_kv_head=shape.n_head,
                n_embd=shape.n_embd,
            )
        )
    n_params = sum(parameter.numel() for parameter in model.parameters())
    assert n_params == pytest.approx(millions * 1e6, rel=0.015)
    assert n_params == scaling_params(depth, 2**16) + shape.n_embd * 2**16


def test_published_shapes():
    got = {
        depth: (shape_for_depth(depth).n_embd, shape_for_depth(depth).n_head)
        for depth in (4, 12, 20, 26, 32)
    }
    assert got == {4: (256, 2), 12: (768, 6), 20: (1280, 10), 26: (1664, 13), 32: (2048, 16)}
    assert shape_for_depth(5).n_embd == 384  # 320, rounded up to whole heads
    assert shape_for_depth(6, aspect_ratio=32, head_dim=64) == shape_for_depth(6, 32, 64)


@given(st.integers(1, 60), st.integers(1, 40))
def test_deeper_is_never_smaller(depth, more):
    small, large = shape_for_depth(depth), shape_for_depth(depth + more)
    assert small.n_embd <= large.n_embd and small.n_head <= large.n_head and small.n_embd % 128 == 0
    assert scaling_params(depth, 1000) < scaling_params(depth + more, 1000)
    horizons = [12 * scaling_params(d, 32768) for d in (depth, depth + more)]
    batches = [batch_tokens(horizon, REFERENCE) for horizon in horizons]
    assert batches[0] <= batches[1] and all(math.log2(batch).is_integer() for batch in batches)
    assert weight_decay_scale(2**19, horizons[1], REFERENCE) <= weight_decay_scale(
        2**19, horizons[0], REFERENCE
    )


def test_the_reference_is_the_reference():
    assert batch_tokens(REFERENCE, REFERENCE) == 2**19 and lr_scales(2**19) == (1, 1)
    assert weight_decay_scale(2**19, REFERENCE, REFERENCE) == 1
    assert lr_scales(2**21) == (2, 2) and lr_scales(2**13) == (0.5, 0.125)
    assert [batch_tokens(REFERENCE * 2 ** (n / 0.383), REFERENCE) for n in (1, 4, -6)] == [
        2**20,
        2**23,
        2**13,
    ]


@given(st.integers(1, 2**23))
def test_learning_rates_grow_with_the_batch(batch):
    for one, twice in zip(lr_scales(batch), lr_scales(2 * batch), strict=True):
        assert 0 < one <= twice <= 2**0.5 * one + 1e-9


@pytest.mark.parametrize("ratio", [0.001, 0.12, 1.2, 6.0])
@pytest.mark.parametrize("depth", [2, 4, 12])
def test_a_short_run_decays_its_weights_no_more_than_the_same_run_cut_short(depth, ratio):
    """By --target-param-data-ratio as by --num-iterations: 392 was once derived from the first."""
    common = {"depth": depth, "total_batch_size": 4096, "max_seq_len": 256}
    by_ratio = pretraining(BaseConfig(**common, target_param_data_ratio=ratio), 2048, "cpu")
    by_steps = pretraining(BaseConfig(**common, num_iterations=by_ratio.n_steps), 2048, "cpu")
    whole = pretraining(BaseConfig(**common), 2048, "cpu")
    decays = {settings.optim.weight_decay for settings in (by_ratio, by_steps, whole)}
    assert len(decays) == 1 and by_ratio.n_steps < whole.n_steps
    longer = pretraining(BaseConfig(**common, target_param_data_ratio=24.0), 2048, "cpu")
    assert longer.optim.weight_decay == pytest.approx(decays.pop() / 2)


def test_a_given_weight_decay_is_taken_as_it_is():
    cfg = BaseConfig(depth=4, target_param_data_ratio=0.01, weight_decay=5.0)
    assert pretraining(cfg, 2048, "cpu").optim.weight_decay == 5.0
