"""The fp8 products against their emulation, and a model that learns with them: on a CPU, which has
them in software.
"""

from __future__ import annotations

import pytest
import torch

from nanochat.fp8 import Float8Linear, check_fp8, quantize, use_fp8
from nanochat.gpt import GPT, GPTConfig, Linear


def values(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is left of x after quantizing, in fp32."""
    small, scale = quantize(x, dtype)
    return small.float() * scale


@pytest.mark.parametrize("dtype, step", [(torch.float8_e4m3fn, 2**-4), (torch.float8_e5m2, 2**-3)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e5])
def test_quantizing_keeps_the_largest_value_and_relative_precision(dtype, step, size):
    x = torch.randn(40, 30) * size
    near = values(x, dtype)
    assert near.abs().max() == pytest.approx(x.abs().max().item(), rel=1e-3)
    large = x.abs() > 0.01 * x.abs().max()
    assert ((near - x).abs() / x.abs())[large].max() <= step * 1.01
    assert values(torch.zeros(3, 3), dtype).abs().max() == 0


def test_products_equal_their_emulation():
    torch.manual_seed(0)
    linear = Float8Linear(48, 32)
    x, upstream = torch.randn(2, 32, 48, requires_grad=True), torch.randn(2, 32, 32) * 1e-4
    y = linear(x)
    y.backward(upstream)
    x8, w8 = (
        values(x.detach(), torch.float8_e4m3fn),
        values(linear.weight.detach(), torch.float8_e4m3fn),
    )
    g8 = values(upstream, torch.float8_e5m2)
    torch.testing.assert_close(y.detach(), x8 @ w8.t(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(x.grad, g8 @ w8, rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(
        linear.weight.grad, g8.flatten(0, 1).t() @ x8.flatten(0, 1), rtol=1e-3, atol=1e-7
    )


def test_evaluation_and_odd_shapes_run_in_the_compute_type():
    linear = Float8Linear(48, 32)
    plain = Linear(48, 32)
    plain.weight = linear.weight
    odd = torch.randn(5, 48)
    assert torch.equal(linear(odd), plain(odd))
    with torch.no_grad():
        assert torch.equal(linear(torch.ones(16, 48)), plain(torch.ones(16, 48)))
    assert not torch.equal(linear(x := torch.randn(16, 48)), plain(x))


@pytest.mark.parametrize("generation", ["classic", "modern"])
def test_a_model_keeps_its_parameters_and_learns(generation):
    model = GPT(
        GPTConfig.preset(
            generation,
            sequence_len=32,
            vocab_size=64,
            n_layer=2,
            n_head=2,
            n_kv_head=1,
            n_embd=64,
            window_pattern="L",
        )
    )
    model.init_weights(0)
    before = dict(model.named_parameters())
    assert use_fp8(model) == 2 * 6
    assert {name: id(p) for name, p in model.named_parameters()} == {
        name: id(p) for name, p in before.items()
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.randint(0, 64, (4, 33))
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(
            model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_where_there_are_no_units_the_error_says_so():
    with pytest.raises(ValueError, match="--fp8: not available on cpu"):
        check_fp8(torch.device("cpu"))


def test_gates_stay_out_of_fp8():
    sizes = {"n_layer": 2, "vocab_size": 64, "n_embd": 256, "n_head": 16, "n_kv_head": 16}
    model = GPT(GPTConfig(**sizes, value_embeddings=True, value_gate_channels=32))
    assert use_fp8(model) == 2 * 6 and type(model.blocks[1].attn.ve_gate) is Linear
