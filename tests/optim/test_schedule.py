"""Schedules: pure functions of the step that start, hold and end where they should."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.optim.schedule import Schedule

shapes = st.integers(1, 3000).flatmap(
    lambda n: st.builds(
        Schedule,
        n_steps=st.just(n),
        warmup_steps=st.integers(0, n // 2),
        warmdown_steps=st.integers(0, n - n // 2),
        final_lr_frac=st.floats(0, 1),
        decay_weight_decay=st.booleans(),
        momentum=st.just((0.85, 0.97, 0.90)),
        momentum_warmup=st.integers(0, 400),
    )
)


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_bounds_and_directions(schedule):
    n, up, down = schedule.n_steps, schedule.warmup_steps, schedule.warmdown_steps
    rates = [schedule.lr(step) for step in range(n + 1)]
    assert all(0 <= rate <= 1 for rate in rates) and (up == 0 or rates[0] > 0)
    assert rates[:up] == sorted(rates[:up]) and all(rate == 1 for rate in rates[up : n - down])
    assert rates[n - down :] == sorted(rates[n - down :], reverse=True)
    assert rates[n] == (pytest.approx(schedule.final_lr_frac) if down else 1)
    momenta = [schedule.muon_momentum(step) for step in range(n + 1)]
    assert all(0.85 - 1e-12 <= momentum <= 0.97 + 1e-12 for momentum in momenta)
    decays = [schedule.weight_decay(step) for step in range(n + 1)]
    assert decays == sorted(decays, reverse=True) and decays[0] == 1
    assert decays[n] == pytest.approx(0.0 if schedule.decay_weight_decay else 1.0)


def test_the_modern_recipe_by_hand():
    schedule = Schedule(1000, 40, 650, 0.05, (0.85, 0.97, 0.90), 400, True)
    assert [schedule.lr(s) for s in (0, 19, 39, 40, 350)] == [1 / 40, 0.5, 1, 1, 1]
    assert schedule.lr(675) == pytest.approx(0.525) and schedule.lr(1000) == pytest.approx(0.05)
    assert schedule.muon_momentum(0) == 0.85 and schedule.muon_momentum(200) == pytest.approx(0.91)
    assert schedule.muon_momentum(1000) == pytest.approx(0.90) and schedule.weight_decay(
        500
    ) == pytest.approx(0.5)


def test_beyond_the_end_nothing_turns_negative():
    schedule = Schedule(10, 0, 5, 0.0)
    assert schedule.lr(11) == 0 and schedule.weight_decay(20) == 1
