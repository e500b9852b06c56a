"""Drawing tokens: filters against their plain definition, frequencies against probabilities, no
rows mixing.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine.sampler import sample
from nanochat.engine.sequence import SamplingParams, Sequence, sample_seed


def sequence(**params) -> Sequence:
    return Sequence(0, [0], SamplingParams(**params))


def draw(logits: torch.Tensor, n: int, **params) -> list[int]:
    one = sequence(**{"seed": 0, **params})
    return [sample(logits[None], [one])[0].token for _ in range(n)]


def allowed(logits: torch.Tensor, temperature=1.0, top_k=None, top_p=None, min_p=None) -> set[int]:
    """The definition: sort, cut to top_k, drop what is below min_p of the best, cut to the smallest
    nucleus.
    """
    p = (logits.double() / temperature).softmax(-1)
    order = p.argsort(descending=True).tolist()[: top_k or len(p)]
    order = [t for t in order if p[t] >= (min_p or 0) * p.max()]
    if not top_k:
        mass = sum(float(p[t]) for t in order) if min_p is None else 1.0
    else:
        mass = sum(float(p[t]) for t in order)
    kept, total = [], 0.0
    for token in order:
        if kept and total >= (1.0 if top_p is None else top_p) * mass - 1e-12:
            break
        kept.append(token)
        total += float(p[token])
    return set(kept)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(0.3, 3.0),
    st.sampled_from([None, 2, 5, 30]),
    st.sampled_from([None, 0.3, 0.9]),
    st.sampled_from([None, 0.05, 0.5]),
)
def test_only_allowed_tokens_are_drawn(seed, temperature, top_k, top_p, min_p):
    logits = 3 * torch.randn(40, generator=torch.Generator().manual_seed(seed))
    drawn = draw(
        logits, 60, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed
    )
    assert set(drawn) <= allowed(logits, temperature, top_k, top_p, min_p)


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.3}]
)
def test_frequencies_follow_probabilities(params):
    logits = torch.tensor([2.0, 1.5, 0.5, 0.0, -1.0, -3.0])
    kept = allowed(logits, **params)
    p = (logits.double() / params.get("temperature", 1.0)).softmax(-1)
    p = torch.tensor([float(p[t]) if t in kept else 0.0 for t in range(6)])
    p /= p.sum()
    counts = torch.bincount(torch.tensor(draw(logits, 4000, **params)), minlength=6) / 4000
    assert (counts - p).abs().max() < 0.03
    assert bool((counts[p == 0] == 0).all())


def test_flat_distributions_need_more_than_the_usual_candidates():
    logits = torch.zeros(4000)
    drawn = draw(logits, 300, top_p=0.9)
    assert len(set(drawn)) > 200, "the nucleus is 3600 tokens wide"


def test_a_top_k_of_everything_is_no_top_k():
    logits = torch.randn(2000, generator=torch.Generator().manual_seed(2))
    assert draw(logits, 50, top_k=5000, top_p=0.95) == draw(logits, 50, top_p=0.95)
    assert len(set(draw(torch.zeros(2000), 2000, top_k=5000, top_p=0.99))) > 1000


def test_cold_is_greedy_and_zero_is_greedy():
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1))
    best = int(logits.argmax())
    for params in (
        {"temperature": 0},
        {"temperature": 1e-300},
        {"top_k": 1},
        {"top_p": 1e-9},
        {"min_p": 1.0},
    ):
        assert set(draw(logits, 20, **params)) == {best}


def test_ties_and_neighbours_change_nothing():
    logits = (
        torch.randn(1, 200, generator=torch.Generator().manual_seed(0)).round().repeat(6, 1)
    )  # full of ties
    kinds = [
        {"top_k": 10},
        {"top_k": 50},
        {"top_p": 0.6},
        {},
        {"temperature": 0},
        {"top_k": 10, "top_p": 0.5},
    ]
    together = [sequence(seed=5, **kind) for kind in kinds]
    alone = [sequence(seed=5, **kind) for kind in kinds]
    for _ in range(50):
        rows = [s.token for s in sample(logits, together)]
        assert rows == [sample(logits[:1], [one])[0].token for one in alone]


def test_logprobs_are_the_models_own():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    drawn = sample(logits, [sequence(temperature=0, logprobs=2)])[0]
    expected = logits[0].log_softmax(-1)
    assert drawn.token == 1 and drawn.logprob == pytest.approx(float(expected[1]))
    assert [t for t, _ in drawn.top] == [1, 2] and drawn.top[1][1] == pytest.approx(
        float(expected[2])
    )
    assert sample(logits, [sequence(temperature=0)])[0].logprob is None
    assert sample(logits, [sequence(temperature=0, logprobs=0)])[0].top == ()


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"temperature": -1}, ["temperature"]),
        ({"temperature": math.nan}, ["temperature"]),
        ({"temperature": math.inf}, ["temperature"]),
        ({"temperature": "hot"}, ["temperature"]),
        ({"temperature": True}, ["temperature"]),
        ({"top_k": -5}, ["top_k"]),
        ({"top_k": 1.5}, ["top_k"]),
        ({"top_p": 0}, ["top_p"]),
        ({"top_p": 1.1}, ["top_p"]),
        ({"min_p": -0.1}, ["min_p"]),
        ({"min_p": math.nan}, ["min_p"]),
        ({"seed": -1}, ["seed"]),
        ({"seed": 2**64}, ["seed"]),
        ({"max_tokens": -1}, ["max_tokens"]),
        ({"logprobs": 21}, ["logprobs"]),
        ({"stop": ("",)}, ["stop"]),
        ({"stop": 5}, ["stop"]),
        ({"stop": ["a"] * 17}, ["stop"]),
        ({"tools": "maybe"}, ["tools"]),
        ({"temperature": -1, "top_k": -1, "top_p": 2}, ["temperature", "top_k", "top_p"]),
    ],
)
def test_bad_parameters_are_named(params, names):
    with pytest.raises(ValueError) as error:
        SamplingParams(**params)
    assert [part.split("=")[0] for part in str(error.value).split("; ")] == names


def test_convenient_spellings():
    params = SamplingParams(stop="\n", tools=False, top_k=0, top_p=1)
    assert params.stop == ("\n",) and params.tools == "off"
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
    assert set(draw(torch.zeros(5), 100, top_k=0)) == set(range(5))
    assert (
        sample_seed(None, 3) is None
        and sample_seed(7, 0) == 7
        and sample_seed(7, 1) != sample_seed(8, 0)
    )
