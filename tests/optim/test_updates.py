"""The update rules against their definitions: AdamW as in torch, Muon as orthogonalised
momentum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.optim.adamw import adamw_update
from nanochat.optim.muon import POLYNOMIALS, MuonOptions, muon_update, orthogonalize
from nanochat.optim.training_recipe import RECIPES

NEWTON_SCHULZ, POLAR_EXPRESS = POLYNOMIALS["newton_schulz"], POLYNOMIALS["polar_express"]
MODERN = RECIPES["modern"].optim.muon


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_equals_torch(weight_decay):
    ours = torch.randn(7, 5)
    theirs = torch.nn.Parameter(ours.clone())
    reference = torch.optim.AdamW(
        [theirs], lr=0.03, betas=(0.8, 0.95), eps=1e-10, weight_decay=weight_decay
    )
    state: dict[str, torch.Tensor] = {}
    for step in range(1, 20):
        grad = torch.randn(7, 5)
        theirs.grad = grad.clone()
        reference.step()
        adamw_update(
            ours,
            grad,
            state,
            step=step,
            lr=0.03,
            betas=(0.8, 0.95),
            eps=1e-10,
            weight_decay=weight_decay,
        )
    torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(2, 48), columns=st.integers(2, 48), seed=st.integers(0, 999))
def test_orthogonalised_matrices_have_singular_values_near_one(rows, columns, seed):
    stack = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    for coefficients, low, high in ((NEWTON_SCHULZ, 0.3, 1.4), (POLAR_EXPRESS, 0.6, 1.25)):
        result = orthogonalize(stack, coefficients).float()
        u, s, vh = torch.linalg.svd(stack, full_matrices=False)
        well = s > 0.02 * s.norm(dim=-1, keepdim=True)  # tiny directions need more than five steps
        singular = ((u.mT @ result) @ vh.mT).diagonal(dim1=-2, dim2=-1)
        assert singular[well].min() > low and singular[well].max() < high


def test_orthogonalising_keeps_the_singular_vectors():
    stack = torch.randn(2, 24, 16)
    u, _, vh = torch.linalg.svd(stack, full_matrices=False)
    near = orthogonalize(stack, POLAR_EXPRESS).float()
    assert (near - u @ vh).norm() < 0.12 * (u @ vh).norm()


def test_plain_muon_step_by_hand():
    parameters, grads = torch.randn(2, 12, 6), torch.randn(2, 12, 6)
    before, state = parameters.clone(), {}
    muon_update(
        parameters, grads, state, lr=0.1, momentum=0.9, weight_decay=0.5, options=MuonOptions()
    )
    momentum = 0.1 * grads
    update = orthogonalize(0.1 * grads + 0.9 * momentum, NEWTON_SCHULZ).float()
    lr = 0.1 * 2**0.5  # tall matrices move by the root of their aspect ratio
    torch.testing.assert_close(
        parameters, before * (1 - lr * 0.5) - lr * update, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(state["momentum"], momentum)


def test_normuon_evens_out_neurons_and_keeps_the_norm():
    options = MuonOptions(polynomial="polar_express", beta2=0.9)
    grads = torch.randn(1, 32, 16)
    grads[:, :4] *= 40.0  # a few loud neurons
    plain, evened = torch.zeros(1, 32, 16), torch.zeros(1, 32, 16)
    state: dict[str, torch.Tensor] = {}
    muon_update(
        plain,
        grads,
        {},
        lr=1.0,
        momentum=0.0,
        weight_decay=0.0,
        options=MuonOptions(polynomial="polar_express"),
    )
    muon_update(evened, grads, state, lr=1.0, momentum=0.0, weight_decay=0.0, options=options)
    assert state["second"].shape == (1, 32, 1)
    torch.testing.assert_close(evened.norm(), plain.norm(), rtol=1e-3, atol=0)
    spread = [float(x.norm(dim=-1).std() / x.norm(dim=-1).mean()) for x in (plain, evened)]
    assert spread[1] < 1e-3 < spread[0]


def test_cautious_decay_only_shrinks_what_the_update_shrinks():
    """Zero gradients would divide nothing by nothing: the second of the two steps has none and must
    stay finite.
    """
    parameters = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]])
    grads = torch.tensor([[[1.0, 1.0], [1.0, -1.0]]])
    outcomes = []
    for weight_decay in (0.0, 0.5):
        moved = parameters.clone()
        muon_update(
            moved,
            grads,
            {},
            lr=0.1,
            momentum=0.9,
            weight_decay=weight_decay,
            options=MuonOptions(cautious=True),
        )
        outcomes.append(moved)
    decayed = outcomes[0] - outcomes[1]
    same_sign = torch.tensor([[[True, False], [True, False]]])
    torch.testing.assert_close(decayed, 0.05 * parameters * same_sign)


def test_a_step_without_gradients_stays_finite():
    parameters, state = torch.randn(2, 8, 4), {}
    for grads in (torch.zeros(2, 8, 4), torch.randn(2, 8, 4), torch.zeros(2, 8, 4)):
        muon_update(
            parameters, grads, state, lr=0.02, momentum=0.9, weight_decay=0.1, options=MODERN
        )
        assert parameters.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_stack_cut_in_two_moves_the_same(cut, seed):
    """What lets ranks own parts of a stack."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(5, 6, 9, generator=generator)
    parts, states = [whole[:cut].clone(), whole[cut:].clone()], ({}, {})
    state: dict[str, torch.Tensor] = {}
    for _ in range(3):
        grads = torch.randn(5, 6, 9, generator=generator)
        muon_update(whole, grads, state, lr=0.02, momentum=0.9, weight_decay=0.1, options=MODERN)
        for part, own, piece in zip(parts, states, (grads[:cut], grads[cut:]), strict=True):
            muon_update(part, piece, own, lr=0.02, momentum=0.9, weight_decay=0.1, options=MODERN)
    torch.testing.assert_close(torch.cat(parts), whole, atol=2e-3, rtol=0)
