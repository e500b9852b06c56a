"""Chunked log-probabilities equal those of all logits at once."""

from __future__ import annotations

import pytest
import torch

from nanochat import logprobs
from nanochat.gpt import GPT, GPTConfig
from nanochat.logprobs import target_logprobs


@pytest.fixture(scope="module")
def model() -> GPT:
    model = GPT(
        GPTConfig.preset(
            "modern",
            sequence_len=16,
            vocab_size=70,
            n_layer=1,
            n_head=2,
            n_kv_head=2,
            n_embd=32,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_equal_to_all_logits_at_once(model, monkeypatch, rows):
    monkeypatch.setitem(logprobs.CHUNK_BYTES, "cpu", rows * 4 * 70)
    hidden = torch.randn(50, 32, generator=torch.Generator().manual_seed(2))
    targets = torch.randint(0, 70, (50,), generator=torch.Generator().manual_seed(3))
    whole = model.head(hidden)
    targets[:5] = whole[:5].argmax(-1)
    scores = target_logprobs(model, hidden, targets, with_entropy=True)
    wanted = torch.distributions.Categorical(logits=whole)
    plain = target_logprobs(model, hidden, targets)
    for given in (scores, plain):
        torch.testing.assert_close(given.logprobs, wanted.log_prob(targets))
    assert plain.entropies is None
    torch.testing.assert_close(scores.entropies, wanted.entropy())
    assert torch.equal(scores.greedy, whole.argmax(-1) == targets) and scores.greedy[:5].all()


def test_no_targets_are_no_scores(model):
    scores = target_logprobs(model, torch.zeros(0, 32), torch.zeros(0, dtype=torch.int64))
    assert scores.logprobs.shape == scores.greedy.shape == (0,) and scores.entropies is None
