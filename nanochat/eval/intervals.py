"""Centred scores, error bars and paired tests: pure functions, no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

BOOTSTRAP_ROUNDS = 10_000


def wilson(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927). Sensible at 0, at 1 and for small n,
    unlike +-1.96 sigma.

    `correct` may be a fraction of `n` from several samples a problem. (0, 1) when nothing was
    counted.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = correct / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, low) if p > 0 else 0.0, min(1.0, high) if p < 1 else 1.0


def centered(score: Any, baseline: float) -> Any:
    """A score, or an array of them, on the scale where blind guessing is 0 and everything right
    is 1.
    """
    if not baseline < 1:
        raise ValueError(f"baseline: guessing must score below 1, got {baseline}")
    return (score - baseline) / (1 - baseline)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of "at least one of k samples is right" from n samples (arXiv 2107.03374).
    1 <= k <= n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k: must be from 1 to the number of samples {n}, got {k}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value for two systems on the same items, from the items that exactly one of them
    got right.

    Exact binomial: under "no difference" each such item is a fair coin. 1 when there is none.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return min(1.0, 2 * tail / 2**n)


def bootstrap_difference(
    a: Sequence[float],
    b: Sequence[float],
    level: float = 0.95,
    seed: int = 1337,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> tuple[float, float, float]:
    """Paired bootstrap of mean(b) - mean(a) over items -> (low, high, two-sided p). Deterministic
    for a seed.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if len(difference) == 0:
        return 0.0, 0.0, 1.0
    means = bootstrap_means(difference, seed, rounds)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), bootstrap_p(means)


def bootstrap_means(values: np.ndarray, seed: int, rounds: int = BOOTSTRAP_ROUNDS) -> np.ndarray:
    """Means of `rounds` resamples of `values` (n,), in blocks so that memory stays small:
    (rounds,).
    """
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(values))
    parts = []
    for start in range(0, rounds, block):
        index = rng.integers(0, len(values), size=(min(block, rounds - start), len(values)))
        parts.append(values[index].mean(axis=1))
    return np.concatenate(parts)


def bootstrap_p(means: np.ndarray) -> float:
    """Two-sided p-value of "the mean is zero" from resampled means; never below 1/(rounds + 1)."""
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for looking at several differences at once (Holm 1979), in the order
    given.
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
