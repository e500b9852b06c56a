"""int8 weights: each row rounded to its own scale, every matrix and the head covered."""

from __future__ import annotations

import torch

from nanochat.engine.quantize import Int8Linear, quantize_int8, quantize_rows, weight_bytes_read
from nanochat.gpt import Linear


def test_rows_are_rounded_to_their_own_scale():
    weight = torch.randn(50, 96) * torch.logspace(-3, 3, 50)[:, None]
    weight[7] = 0
    rounded, scale = quantize_rows(weight)
    assert rounded.dtype == torch.int8 and int(rounded.abs().max()) == 127
    assert bool(((rounded * scale[:, None] - weight).abs() <= scale[:, None] / 2 * 1.001).all())


def test_quantisation_covers_every_matrix_and_the_head(build, tokenizer):
    model = build("modern", tokenizer.get_vocab_size())
    before = weight_bytes_read(model)
    quantize_int8(model)
    assert isinstance(model.lm_head, Int8Linear)
    left = [m for m in model.modules() if isinstance(m, Linear)]
    assert all(m.in_features < 32 for m in left) and len(left) == 3
    assert weight_bytes_read(model) < before / 3.5
    ids = torch.randint(0, 256, (1, 64))
    exact = build("modern", tokenizer.get_vocab_size())(ids)
    assert (model(ids) - exact).abs().mean() < 0.05 * exact.abs().mean()
