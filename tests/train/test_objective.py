"""The chunked objective equals cross-entropy of softcapped logits, values and gradients, for every
kind of weight.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.train import objective
from nanochat.train.objective import _ChunkedNLL, loss_sum_and_count


def slow(hidden, weight, targets, weights, vocab_size, cap):
    logits = cap * torch.tanh((hidden.float() @ weight[:vocab_size].float().t()) / cap)
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()


def both(n, width, vocab, padding, weights, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    results = []
    for function in (_ChunkedNLL.apply, slow):
        generator.manual_seed(seed)
        hidden = torch.randn(n, width, generator=generator).to(dtype).requires_grad_()
        weight = (2 * torch.randn(vocab + padding, width, generator=generator)).requires_grad_()
        targets = torch.randint(0, vocab, (n,), generator=generator)
        total = function(hidden, weight, targets, weights, vocab, 15.0)
        (total * 0.37).backward()
        results.append((total.detach(), hidden.grad.float(), weight.grad))
    return results


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 50),
    vocab=st.integers(2, 90),
    padding=st.integers(0, 10),
    chunk=st.integers(1, 40),
    block=st.integers(1, 40),
    seed=st.integers(0, 999),
)
def test_equals_cross_entropy_for_any_chunks(n, vocab, padding, chunk, block, seed):
    weights = torch.randn(
        n, generator=torch.Generator().manual_seed(seed)
    )  # negative ones too: advantages
    weights[::3] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "CHUNK_BYTES", {"cpu": chunk * vocab * 4, "cuda": 0})
        patch.setattr(objective, "BLOCK_BYTES", {"cpu": block * vocab * 4, "cuda": 0})
        fast, expected = both(n, 8, vocab, padding, weights, seed=seed)
    for ours, theirs in zip(fast, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    assert (fast[2][vocab:] == 0).all(), "padded rows are never trained"


def test_bfloat16_and_float16_are_near():
    weights = torch.ones(64)
    for dtype, tolerance in ((torch.bfloat16, 0.03), (torch.float16, 0.005)):
        fast, expected = both(64, 32, 200, 0, weights, dtype)
        for ours, theirs in zip(fast, expected, strict=True):
            assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_a_batch_without_targets_is_zero_not_nan(generation):
    model = GPT(
        GPTConfig.preset(
            generation,
            sequence_len=16,
            vocab_size=50,
            n_layer=2,
            n_head=2,
            n_kv_head=1,
            n_embd=32,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    ids = torch.randint(0, 50, (2, 16))
    total, count = loss_sum_and_count(model, Batch(ids, ids, torch.zeros(2, 16)))
    total.backward()
    assert total.item() == 0 and count.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_all_gradients_of_a_model_equal_the_full_logits(generation):
    """Grouped queries, a padded vocabulary and mixed weights at once."""
    grads = []
    for fast in (True, False):
        torch.manual_seed(0)
        model = GPT(
            GPTConfig.preset(
                generation,
                sequence_len=16,
                vocab_size=50,
                n_layer=2,
                n_head=4,
                n_kv_head=2,
                n_embd=32,
                window_pattern="SL",
            )
        )
        model.init_weights(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        ids, weights = torch.randint(0, 50, (2, 17)), torch.randn(2, 16).round()
        if fast:
            total, count = loss_sum_and_count(model, Batch(ids[:, :-1], ids[:, 1:], weights))
            assert count == (weights != 0).sum()
        else:
            losses = F.cross_entropy(
                model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
            )
            total = (losses * weights.flatten()).sum()
        total.backward()
        grads.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(
            grads[0][name], grads[1][name], atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_extreme_logits_stay_finite():
    hidden = torch.full((4, 8), 1e4, requires_grad=True)
    weight = torch.randn(30, 8, requires_grad=True)
    total = _ChunkedNLL.apply(hidden, weight, torch.arange(4), torch.ones(4), 30, 15.0)
    total.backward()
    assert total.isfinite() and hidden.grad.isfinite().all() and weight.grad.isfinite().all()


def test_no_gradients_are_computed_where_none_are_wanted():
    hidden, weight = torch.randn(4, 8), torch.randn(30, 8)
    with torch.no_grad():
        assert not _ChunkedNLL.apply(
            hidden, weight, torch.arange(4), torch.ones(4), 30, 15.0
        ).requires_grad
