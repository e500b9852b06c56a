"""Every parameter is trained by exactly one rule, at the published rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nanochat.gpt import GPT, GPTConfig
from nanochat.optim.groups import parameter_groups
from nanochat.optim.training_recipe import RECIPES


def model_of(generation: str, **changes) -> GPT:
    values = {
        "sequence_len": 16,
        "vocab_size": 96,
        "n_layer": 3,
        "n_head": 2,
        "n_kv_head": 1,
        "n_embd": 64,
    }
    return GPT(GPTConfig.preset(generation, **{**values, **changes}))


@pytest.mark.parametrize("generation", ["classic", "modern"])
@pytest.mark.parametrize("n_layer", [1, 2, 5])
def test_every_parameter_exactly_once(generation, n_layer):
    model = model_of(generation, n_layer=n_layer)
    grouped = [
        parameter
        for group in parameter_groups(model, RECIPES[generation].optim)
        for parameter in group.parameters
    ]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_matrices_of_blocks_and_nothing_else_go_to_muon(generation):
    model = model_of(generation)
    groups = parameter_groups(model, RECIPES[generation].optim)
    blocks = {id(p) for p in model.transformer.h.parameters()}
    for group in groups:
        assert all((id(p) in blocks) == (group.kind == "muon") for p in group.parameters), (
            group.name
        )
        if group.kind == "muon":
            assert len({p.shape for p in group.parameters}) == 1


def test_a_forgotten_parameter_is_an_error():
    model = model_of("modern")
    model.extra = nn.Parameter(torch.zeros(3))
    with pytest.raises(AssertionError, match="in no group"):
        parameter_groups(model, RECIPES["modern"].optim)
    tied = model_of("classic")
    tied.lm_head.weight = tied.transformer.wte.weight
    with pytest.raises(AssertionError, match="in two groups"):
        parameter_groups(tied, RECIPES["classic"].optim)


def test_published_rates_at_width_768():
    shape = {"n_embd": 768, "n_head": 6, "n_kv_head": 6, "vocab_size": 64}
    modern = {
        g.name: g for g in parameter_groups(model_of("modern", **shape), RECIPES["modern"].optim)
    }
    got = {name: (g.lr, g.betas, g.weight_decay) for name, g in modern.items() if g.kind == "adamw"}
    assert got == {
        "head": (0.008, (0.8, 0.96), 0.01),
        "embedding": (0.3, (0.8, 0.995), 0.001),
        "value_embeds": (0.15, (0.8, 0.995), 0.01),
        "resid_lambdas": (0.005, (0.8, 0.95), 0.05),
        "x0_lambdas": (0.5, (0.96, 0.95), 0.0),
        "smear_backout": (0.2, (0.8, 0.95), 0.0),
    }
    assert all(
        g.lr == 0.02 and g.weight_decay == 0.28 and g.eps == 1e-10
        for g in modern.values()
        if g.kind == "muon"
    )
    shape = {**shape, "n_embd": 3072, "n_head": 24, "n_kv_head": 24}
    wide = {
        g.name: g
        for g in parameter_groups(model_of("classic", n_layer=1, **shape), RECIPES["classic"].optim)
    }
    assert wide["embedding"].lr == pytest.approx(0.1) and wide["head"].lr == pytest.approx(0.002)
    assert wide["head"].betas == (0.8, 0.95) and wide["head"].weight_decay == 0
