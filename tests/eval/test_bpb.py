"""Bits per byte: the recorded sums, specials and weights left out, ranks added up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nanochat.checkpoint_manager import build_model, load_checkpoint
from nanochat.dataloader.loader import Batch
from nanochat.eval.bpb import bits_per_byte, nll_and_bytes
from nanochat.tokenizer import Tokenizer


def batch_of(rows):
    ids = torch.tensor(rows)
    return Batch(ids[:, :-1], ids[:, 1:], torch.ones(ids[:, 1:].shape))


@pytest.mark.parametrize("name, tag", [("classic_d2", "d2"), ("modern_d3", "d3")])
def test_equals_the_recorded_sums(shared_dir, single, name, tag):
    folder = shared_dir / "fixtures" / name
    expected = np.load(folder / "expected.npz")
    state, _, meta = load_checkpoint(folder / "base_checkpoints" / tag, 60, "cpu")
    model = build_model(state, meta).float()
    sizes = Tokenizer.load(folder / "tokenizer").token_bytes()
    batch = batch_of([expected["input_ids"].tolist()])
    nll, n_bytes = nll_and_bytes(model, batch, sizes)
    assert float(nll) == pytest.approx(float(expected["nll_sum"]), rel=1e-4)
    assert int(n_bytes) == int(expected["target_bytes"])
    bpb = bits_per_byte(model, [batch], sizes, single)
    assert bpb == pytest.approx(
        float(expected["nll_sum"]) / math.log(2) / int(expected["target_bytes"]), rel=1e-4
    )


def test_specials_masked_and_absent_targets_do_not_count(model, tokenizer, single):
    sizes = tokenizer.token_bytes()
    bos = tokenizer.get_bos_token_id()
    plain = batch_of([[bos, 10, 20, 30, 40]])
    logits = model(plain.input_ids)[0]
    nll = torch.nn.functional.cross_entropy(logits, plain.targets[0], reduction="none").tolist()
    assert bits_per_byte(model, [plain], sizes, single) == pytest.approx(
        sum(nll) / math.log(2) / 4, rel=1e-5
    )
    partly = Batch(
        plain.input_ids, torch.tensor([[10, bos, -1, 40]]), torch.tensor([[1.0, 1.0, 1.0, 0.5]])
    )
    assert bits_per_byte(model, [partly], sizes, single) == pytest.approx(
        (nll[0] + nll[3]) / math.log(2) / 2, rel=1e-5
    )
    masked = Batch(plain.input_ids, plain.targets, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert bits_per_byte(model, [masked], sizes, single) == pytest.approx(
        nll[2] / math.log(2), rel=1e-5
    )


def test_nothing_to_count_is_nan_and_the_mode_is_kept(model, tokenizer, single):
    empty = Batch(
        torch.zeros(1, 3, dtype=torch.long),
        torch.full((1, 3), tokenizer.get_bos_token_id()),
        torch.ones(1, 3),
    )
    model.train()
    assert (
        math.isnan(bits_per_byte(model, [empty], tokenizer.token_bytes(), single))
        and model.training
    )
    model.eval()


def test_ranks_add_up_sums_not_means(model, tokenizer, single, on_ranks):
    sizes = tokenizer.token_bytes()
    batches = [batch_of([[1, 2, 3, 4]]), batch_of([[9, 8, 7, 6, 5, 4, 3]]), batch_of([[50, 60]])]
    whole = bits_per_byte(model, batches, sizes, single)
    parts = on_ranks(2, lambda world: bits_per_byte(model, batches[world.rank :: 2], sizes, world))
    assert parts == pytest.approx([whole, whole], rel=1e-9)
