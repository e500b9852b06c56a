"""What a model's config accepts, and what it reads out of the files of every public variant."""

from __future__ import annotations

import json

import pytest
import torch
from plain_gpt import VARIANTS, Variant, plain_logits

from nanochat.checkpoint_manager import build_model
from nanochat.gpt import GPT
from nanochat.gpt_config import PRESETS, GPTConfig

SIZES = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "n_embd": 64}


def make(name: str, **changes) -> GPTConfig:
    return GPTConfig.preset(name, **{"sequence_len": 64, "vocab_size": 100, **SIZES, **changes})


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_its_file(name):
    config = make(name)
    assert GPTConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert GPTConfig.from_checkpoint(json.loads(json.dumps(config.to_dict())), {}) == config


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"n_layer": 0}, "n_layer=0"),
        ({"n_embd": 65}, "n_embd=65"),
        ({"n_embd": 20, "n_head": 2, "value_gate_channels": 32}, "n_embd=20: .* 24 for smear"),
        ({"n_embd": 28, "n_head": 2, "value_gate_channels": 32}, "n_embd=28: .* value_embeddings"),
        ({"n_kv_head": 3}, "n_kv_head=3: must divide n_head=4"),
        ({"window_pattern": "SX"}, "window_pattern='SX'"),
        ({"window_pattern": ""}, "window_pattern=''"),
        ({"window_tokens": 0}, "window_tokens=0: must be at least 1"),
        ({"logit_softcap": 0.0}, "logit_softcap=0.0: must be above 0"),
        ({"logit_softcap": 100.0}, "logit_softcap=100.0: must be at most 64"),
        ({"rope_base": float("nan")}, "rope_base=nan"),
        ({"vocab_multiple": 0}, "vocab_multiple=0"),
        ({"matrix_init": "zeros"}, "matrix_init='zeros'"),
        ({"vocab_size": -1, "n_head": 0}, "vocab_size=-1.*n_head=0"),
    ],
)
def test_problems_name_the_field(changes, named):
    with pytest.raises(ValueError, match=named):
        make("modern", **changes)


def test_a_preset_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="future: no such preset; use one of classic, modern"):
        make("future")


def test_short_windows_without_a_width_are_an_error():
    with pytest.raises(ValueError, match="window_tokens=None: say how many tokens"):
        GPTConfig(window_pattern="SL")


def test_windows_and_value_embeddings_by_layer():
    config = make("modern", sequence_len=2048, n_layer=6)
    windows = [config.window(layer) for layer in range(6)]
    assert windows == [512, 512, 512, -1, 512, -1]  # the last is always long
    assert [layer for layer in range(6) if config.has_value_embedding(layer)] == [1, 3, 5]
    # a quarter, rounded up to 128
    assert make("modern", sequence_len=1000).window(0) == 256
    assert make("modern", sequence_len=513).window(0) == 256
    assert make("modern", sequence_len=1000, window_tokens=128).window(0) == 128


def test_rows_of_the_tables_are_padded_by_the_preset():
    assert make("modern", vocab_size=50_000).padded_vocab_size == 50_048
    assert make("classic", vocab_size=50_000).padded_vocab_size == 50_000


def random_state(config: GPTConfig) -> dict[str, torch.Tensor]:
    """Every tensor random: a fresh model's zeroed projections would hide errors."""
    model, generator = GPT(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            std = 1.0 if parameter.dim() < 2 else parameter.size(-1) ** -0.5
            parameter.normal_(0, std, generator=generator)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def config_of(variant: Variant, context: int) -> GPTConfig:
    """Only for the names and shapes of the variant's tensors."""
    return GPTConfig(
        sequence_len=context,
        vocab_size=100,
        **SIZES,
        vocab_multiple=variant.vocab_multiple,
        value_embeddings=variant.gate_channels > 0,
        value_gate_channels=variant.gate_channels or 12,
        residual_mixing=variant.mixing,
        smear=variant.smear,
        backout=variant.smear,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_public_variant_is_recognised_and_computes_what_it_did(name):
    """The context is long enough for a half, a third and a quarter of it to differ."""
    variant, context = VARIANTS[name], 1200
    state = random_state(config_of(variant, context))
    model_config = {"sequence_len": context, "vocab_size": 100, **SIZES, **variant.extra_meta}
    ids = torch.randint(0, 100, (1, 900), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = build_model(state, {"model_config": model_config})(ids)[0]
    expected = plain_logits(state, ids[0], variant, n_head=4, context=context)[:, :100]
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    # The plain forward pass must be able to tell the variants apart.
    for other in VARIANTS.values():
        tensors = "vocab_multiple", "gate_channels", "mixing", "smear"
        if other != variant and all(getattr(other, t) == getattr(variant, t) for t in tensors):
            others = plain_logits(state, ids[0], other, n_head=4, context=context)[:, :100]
            assert (others - expected).abs().max() > 1e-2


def test_a_field_that_the_file_names_counts():
    variant = VARIANTS["16 January 2026"]
    shapes = {n: tuple(t.shape) for n, t in random_state(config_of(variant, 64)).items()}
    public = {"sequence_len": 64, "vocab_size": 100, **SIZES, **variant.extra_meta}
    assert GPTConfig.from_checkpoint(public, shapes).logit_softcap == 15
    named = GPTConfig.from_checkpoint({**public, "logit_softcap": 20, "window_tokens": 7}, shapes)
    assert (named.logit_softcap, named.window(0)) == (20, 7)
    assert named.value_gate_scale == 2


def test_files_of_this_project_that_name_a_generation():
    old = {"sequence_len": 2048, "vocab_size": 100, **SIZES, "window_pattern": "SSSL"}
    modern = {**old, "generation": "modern", "window_tokens": None}
    assert GPTConfig.from_checkpoint(modern, {}) == make("modern", sequence_len=2048)
    grown = {**modern, "sequence_len": 4096, "window_tokens": 512}
    assert GPTConfig.from_checkpoint(grown, {}).window(0) == 512
    short = {**old, "generation": "classic", "window_pattern": "L"}
    assert GPTConfig.from_checkpoint(short, {}) == make("classic", sequence_len=2048)
    del modern["window_pattern"]  # its default was L then
    assert GPTConfig.from_checkpoint(modern, {}).window(0) == -1


@pytest.mark.parametrize(
    "name, tensor, said",
    [
        ("14 March 2026", "resid_lambdas", r"resid_lambdas \(missing\)"),
        ("14 March 2026", "smear_gate.weight", r"smear_gate.weight \(missing\)"),
        ("9 March 2026", "value_embeds.2.weight", r"value_embeds.2.weight \(missing\)"),
        ("11 January 2026", "x0_lambdas", r"x0_lambdas \(missing\)"),
    ],
)
def test_a_tensor_of_the_variant_that_is_lost_is_named(name, tensor, said):
    variant = VARIANTS[name]
    state = random_state(config_of(variant, 64))
    del state[tensor]
    meta = {"sequence_len": 64, "vocab_size": 100, **SIZES, **variant.extra_meta}
    with pytest.raises(ValueError, match=said):
        build_model(state, {"model_config": meta})


@pytest.mark.parametrize("tensor", ["transformer.h.0.mlp.c_gate.weight", "bigram.weight"])
def test_unknown_tensors_are_refused_by_name(tensor):
    state = random_state(config_of(VARIANTS["classic"], 64))
    state[tensor] = torch.zeros(2, 2)
    meta = {"sequence_len": 64, "vocab_size": 100, **SIZES}
    with pytest.raises(ValueError, match=rf"{tensor} \(unknown\)"):
        build_model(state, {"model_config": meta})
