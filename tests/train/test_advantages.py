"""Advantages and weights against their definitions: the gradient of each weight is that of the loss
it stands for.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.train.advantages import advantages, clipped_weights, kl_estimate, kl_weights

REWARDS = st.lists(st.floats(-10, 10, allow_nan=False), min_size=2, max_size=20)
BASELINES = st.sampled_from(["mean", "grpo", "loo"])


@given(REWARDS, BASELINES)
def test_better_answers_get_more_and_all_together_nothing(rewards, baseline):
    worth = advantages(rewards, baseline)
    assert len(worth) == len(rewards) and all(map(math.isfinite, worth))
    assert sum(worth) == pytest.approx(0, abs=1e-6)
    ordered = [value for _, value in sorted(zip(rewards, worth, strict=True))]
    assert all(low <= high for low, high in itertools.pairwise(ordered))


@given(st.floats(-10, 10, allow_nan=False), st.integers(2, 20), BASELINES)
def test_equal_rewards_teach_exactly_nothing(reward, n, baseline):
    assert advantages([reward] * n, baseline) == [0.0] * n


@given(REWARDS, BASELINES, st.randoms())
def test_order_does_not_matter(rewards, baseline, rng):
    order = list(range(len(rewards)))
    rng.shuffle(order)
    shuffled = advantages([rewards[i] for i in order], baseline)
    assert shuffled == pytest.approx(
        [advantages(rewards, baseline)[i] for i in order], rel=1e-6, abs=1e-9
    )


@given(REWARDS)
def test_each_baseline_is_what_it_says(rewards):
    n, total = len(rewards), math.fsum(rewards)
    assert advantages(rewards, "mean") == pytest.approx([r - total / n for r in rewards], abs=1e-9)
    others = [r - (total - r) / (n - 1) for r in rewards]
    assert advantages(rewards, "loo") == pytest.approx(others, rel=1e-6, abs=1e-9)
    if min(rewards) < max(rewards):
        worth = advantages(rewards, "grpo")
        assert math.fsum(value * value for value in worth) / n == pytest.approx(1.0)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="--num-samples=1"):
        advantages([1.0])
    with pytest.raises(ValueError, match="--advantage=best"):
        advantages([0.0, 1.0], "best")  # type: ignore[arg-type]


NUMBERS = st.lists(st.tuples(*[st.floats(-2, 2, width=32)] * 3), min_size=1, max_size=8)


@given(NUMBERS, st.floats(0.05, 0.5))
def test_clipped_weights_have_the_gradient_of_the_clipped_surrogate(rows, clip):
    advantage, new, old = (
        torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)
    )
    logprobs = new.clone().requires_grad_()
    ratio = (logprobs - old).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    wanted = torch.autograd.grad(surrogate.sum(), logprobs)[0]
    weights = clipped_weights(advantage, new, old, clip)
    at_the_edge = ((ratio - 1).abs() - clip).abs() < 1e-9  # the surrogate has a kink there
    assert torch.allclose(weights[~at_the_edge], wanted[~at_the_edge])


@given(NUMBERS)
def test_on_the_policy_that_drew_them_nothing_is_clipped(rows):
    advantage, logprobs, _ = (torch.tensor(column) for column in zip(*rows, strict=True))
    assert torch.equal(clipped_weights(advantage, logprobs, logprobs, 0.2), advantage)


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_kl_weights_and_estimate_have_the_right_expectation(logits, others):
    """Over all three tokens, weighted by how often the model draws them: exact, no sampling."""
    parameters = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    model, reference = (
        parameters.log_softmax(0),
        torch.tensor(others, dtype=torch.float64).log_softmax(0),
    )
    kl = (model.exp() * (model - reference)).sum()
    wanted = torch.autograd.grad(kl, parameters, retain_graph=True)[0]
    drawn = model.detach().exp()
    loss = (
        drawn * kl_weights(model.detach(), reference, 0.7) * -model
    ).sum()  # sum of weight * NLL
    assert torch.allclose(torch.autograd.grad(loss, parameters)[0], 0.7 * wanted, atol=1e-9)
    estimate = (drawn * kl_estimate(model.detach(), reference)).sum()
    assert estimate.item() == pytest.approx(kl.item(), abs=1e-9)
    assert bool((kl_estimate(model.detach(), reference) >= 0).all())
