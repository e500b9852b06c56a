"""Intervals and tests against published values and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.eval.intervals import (
    bootstrap_difference,
    centered,
    holm,
    mcnemar_exact,
    pass_at_k,
    wilson,
)


def test_centred_scores():
    assert centered(0.25, 0.25) == 0 and centered(1.0, 0.25) == 1
    assert centered(np.array([0.0, 1.0]), 0.5).tolist() == [-1, 1]
    with pytest.raises(ValueError, match="guessing must score below 1, got 1"):
        centered(1.0, 1.0)


@pytest.mark.parametrize(
    "correct, n, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_known_values(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_contains_the_score(n, share):
    low, high = wilson(share * n, n)
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1 and high > low
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    wanted = sum(any(i < correct for i in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, correct, k) == pytest.approx(wanted)


def test_pass_at_k_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="from 1 to the number of samples 3"):
        pass_at_k(3, 1, 4)


def test_mcnemar_known_values():
    assert mcnemar_exact(0, 0) == 1.0 and mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(10, 2) == mcnemar_exact(2, 10) == pytest.approx(0.03857, abs=1e-5)
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)


def test_bootstrap_finds_a_difference_and_none():
    rng = np.random.default_rng(0)
    a = rng.random(400)
    low, high, p = bootstrap_difference(a.tolist(), (a + 0.2).tolist())
    assert low == pytest.approx(0.2) and high == pytest.approx(0.2) and p < 0.001
    b = rng.random(400)
    low, high, p = bootstrap_difference(a.tolist(), b.tolist())
    assert low < 0 < high and p > 0.05
    sigma = math.sqrt(2 / 12 / 400)
    assert high - low == pytest.approx(2 * 1.96 * sigma, rel=0.15)
    assert bootstrap_difference([], []) == (0.0, 0.0, 1.0)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and holm([]) == []
