"""The fast attention equals the definition: causal, windows, grouped queries, masks, suffix
queries.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.attention import attend, causal_mask


def tensors(batch: int, queries: int, keys: int, heads: int, groups: int, dim: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, queries, heads, dim, generator=generator)
    k = torch.randn(batch, keys, groups, dim, generator=generator)
    v = torch.randn(batch, keys, groups, dim, generator=generator)
    return q, k, v


def by_hand(q, k, v, window):
    """One output at a time, from the words of the definition."""
    (batch, queries, heads, dim), (_, keys, groups, _) = q.shape, k.shape
    out = torch.empty_like(q)
    for b in range(batch):
        for t in range(queries):
            at = keys - queries + t
            first = 0 if window < 0 else max(0, at - window)
            for h in range(heads):
                g = h // (heads // groups)
                scores = (
                    torch.stack([q[b, t, h] @ k[b, s, g] for s in range(first, at + 1)]) / dim**0.5
                )
                out[b, t, h] = scores.softmax(0) @ v[b, first : at + 1, g]
    return out


@pytest.mark.parametrize("window", [-1, 0, 2, 50])
@pytest.mark.parametrize("heads, groups", [(2, 2), (4, 2), (4, 1)])
def test_reference_is_the_definition(window, heads, groups):
    q, k, v = tensors(2, 5, 7, heads, groups, 4)
    torch.testing.assert_close(
        attend(q, k, v, window, backend="reference"), by_hand(q, k, v, window)
    )


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    queries=st.integers(1, 40),
    earlier=st.integers(0, 20),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    dim=st.sampled_from([2, 8, 16]),
    window=st.integers(-1, 70),
    seed=st.integers(0, 99),
)
def test_sdpa_equals_reference(batch, queries, earlier, groups, per_group, dim, window, seed):
    q, k, v = tensors(batch, queries, queries + earlier, groups * per_group, groups, dim, seed)
    torch.testing.assert_close(
        attend(q, k, v, window), attend(q, k, v, window, backend="reference"), atol=2e-5, rtol=1e-4
    )


def test_mask_replaces_causality_and_window():
    q, k, v = tensors(2, 6, 6, 2, 1, 8)
    mask = (torch.rand(2, 1, 6, 6) < 0.5) | torch.eye(6, dtype=torch.bool)
    for backend in ("sdpa", "reference"):
        with_window = attend(q, k, v, window=0, mask=mask, backend=backend)
        torch.testing.assert_close(with_window, attend(q, k, v, mask=mask, backend="reference"))
    everything = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    assert not torch.allclose(attend(q, k, v, mask=everything), attend(q, k, v)), (
        "the mask must win over causality"
    )


def test_gradients_equal_the_reference():
    for window in (-1, 3):
        grads = []
        for backend in ("sdpa", "reference"):
            q, k, v = (tensor.requires_grad_() for tensor in tensors(2, 9, 9, 4, 2, 8))
            attend(q, k, v, window, backend=backend).square().sum().backward()
            grads.append((q.grad, k.grad, v.grad))
        for fast, slow in zip(*grads, strict=True):
            torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


def test_causal_mask():
    cpu = torch.device("cpu")
    assert causal_mask(2, 4, -1, cpu).tolist() == [[True, True, True, False], [True] * 4]
    assert causal_mask(2, 4, 1, cpu).tolist() == [
        [False, True, True, False],
        [False, False, True, True],
    ]
