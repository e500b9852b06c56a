"""A model that computes no numbers is never drawn from: whatever the way to draw, and only once it
does so.
"""

from __future__ import annotations

import pytest
import torch

from nanochat.engine import Engine, SamplingParams
from nanochat.engine.finite import NonFiniteLogits, checkpoint_named
from nanochat.engine.quantize import quantize_int8
from nanochat.engine.sampler import sample
from nanochat.engine.sequence import Sequence
from nanochat.tokenizer import Tokenizer

WAYS = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"top_k": 5},
    {"top_p": 0.5},
    {"min_p": 0.1},
    {"temperature": 0.0, "logprobs": 2},
]


def poisoned(build, tokenizer: Tokenizer, where: str, generation: str = "classic"):
    model = build(generation, tokenizer.get_vocab_size()).requires_grad_(False)
    with torch.no_grad():
        weight = model.get_parameter(where)
        weight[3 if weight.size(0) > 64 else 0, 0] = float("nan")
    return model


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("params", WAYS)
def test_a_row_with_one_bad_logit_is_not_drawn_from(params, bad):
    logits = torch.randn(3, 50)
    rows = [Sequence(n, [0], SamplingParams(seed=n, **params)) for n in range(3)]
    sample(logits, rows)
    logits[1, 7] = bad
    with pytest.raises(NonFiniteLogits, match="logits that are not finite"):
        sample(logits, rows)


@pytest.mark.parametrize("params", WAYS)
@pytest.mark.parametrize("how", [{}, {"native": False}, {"static": True, "native": False}])
@pytest.mark.parametrize("where", ["lm_head.weight", "transformer.h.1.attn.c_v.weight"])
def test_every_way_of_decoding_notices(build, tokenizer, where, how, params):
    engine = Engine(poisoned(build, tokenizer, where), tokenizer, **how)
    sampling = SamplingParams(**{"seed": 1, "max_tokens": 5, **params})
    with pytest.raises(NonFiniteLogits):
        engine.complete([engine.submit([1, 2], sampling)])
    with pytest.raises(NonFiniteLogits):
        list(engine.stream([1, 2], sampling))
    with pytest.raises(NonFiniteLogits):
        engine.generate_batch([1, 2], max_tokens=5)
    assert not engine.has_work and engine.stats().pages_used == 0


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_other_precisions_notice_too(build, tokenizer, kind):
    model = poisoned(build, tokenizer, "transformer.wte.weight", "modern").bfloat16()
    model.compute_dtype = torch.bfloat16
    engine = Engine(quantize_int8(model) if kind == "int8" else model, tokenizer)
    with pytest.raises(NonFiniteLogits):
        engine.generate_batch([3], max_tokens=5)


def test_a_step_of_fixed_shape_notices_before_it_draws(build, tokenizer):
    """The prompt is read with good weights; only steps that decode see the bad one."""
    model = build("classic", tokenizer.get_vocab_size()).requires_grad_(False)
    for params in ({"temperature": 0.0}, {"temperature": 1.0}, {"top_k": 5}):
        engine = Engine(model, tokenizer, native=False, static=True)
        stream = engine.stream([1, 2], SamplingParams(seed=1, ignore_end=True, **params))
        next(stream)
        next(stream)
        kept = model.lm_head.weight[9].clone()
        model.lm_head.weight[9] = float("nan")
        with pytest.raises(NonFiniteLogits):
            next(stream)
        model.lm_head.weight[9] = kept


def test_one_bad_token_does_not_spoil_the_answers_after_it(build, tokenizer):
    """Only a prompt with token 3 in it is affected; nothing of it stays in the cache."""
    model = poisoned(build, tokenizer, "transformer.wte.weight")
    expected = Engine(model, tokenizer).generate_batch([1, 2] * 20, 2, max_tokens=9, seed=3)
    engine = Engine(model, tokenizer, native=False)
    bystander = engine.submit([1, 2] * 20, SamplingParams(seed=3, max_tokens=9), 2)
    with pytest.raises(NonFiniteLogits):
        engine.generate_batch([3] * 30, 2, max_tokens=5)
    [done] = engine.complete([bystander])
    assert [bystander.prompt + completion.ids for completion in done] == expected[0]
    engine.submit([3] * 30)
    with pytest.raises(NonFiniteLogits):
        engine.step()
    assert [event.finish_reason for event in engine.fail_all("why")] == ["error"]
    assert engine.generate_batch([1, 2] * 20, 2, max_tokens=9, seed=3) == expected


def test_the_caller_adds_the_checkpoint():
    said = "^sft/d2: the model computes logits that are not finite"
    with pytest.raises(NonFiniteLogits, match=said), checkpoint_named("sft/d2"):
        raise NonFiniteLogits
