"""The model: equal to the public implementations, and true to its own rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from nanochat.attention import attend, rotary_tables, rotate
from nanochat.checkpoint_manager import build_model, load_checkpoint
from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT, GPTConfig
from nanochat.train.compiled import ForwardPass
from nanochat.train.objective import loss_sum_and_count

GENERATIONS = ("classic", "modern")


def small(generation: str, **changes) -> GPT:
    values = {
        "sequence_len": 64,
        "vocab_size": 100,
        "n_layer": 3,
        "n_head": 4,
        "n_kv_head": 2,
        "n_embd": 64,
    }
    model = GPT(GPTConfig.preset(generation, **{**values, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # a fresh model's zeroed projections would hide errors
        for parameter in model.parameters():
            parameter.normal_(
                0, 1.0 if parameter.dim() < 2 else parameter.size(-1) ** -0.5, generator=generator
            )
    return model


@pytest.mark.parametrize("folder", ["classic_d2", "modern_d3"])
def test_equal_to_the_public_implementation(shared_dir: Path, folder: str):
    place = next((shared_dir / "fixtures" / folder / "base_checkpoints").iterdir())
    state, _, meta = load_checkpoint(place, 60, "cpu")
    model = build_model(state, meta).float()
    expected = np.load(shared_dir / "fixtures" / folder / "expected.npz")
    ids = torch.from_numpy(expected["input_ids"].astype(np.int64))[None]
    with torch.no_grad():
        logits = model(ids)
        total, count = loss_sum_and_count(
            model, Batch(ids[:, :-1], ids[:, 1:], torch.ones(1, ids.size(1) - 1))
        )
    assert logits.shape == (1, ids.size(1), model.config.vocab_size)
    assert (logits[0] - torch.from_numpy(expected["logits"])).abs().max() < 2e-3
    assert count == ids.size(1) - 1 and abs(
        float(total) - float(expected["nll_sum"])
    ) < 1e-3 * float(count)
    greedy = expected["greedy_prompt"].tolist()
    with torch.no_grad():
        for _ in expected["greedy"]:
            greedy.append(int(model(torch.tensor([greedy]))[0, -1].argmax()))
    assert greedy[len(expected["greedy_prompt"]) :] == expected["greedy"].tolist()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_future_changes_nothing(generation):
    model, ids = small(generation), torch.randint(0, 100, (2, 30))
    changed = ids.clone()
    changed[:, 20:] = 7
    with torch.no_grad():
        before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_short_windows_limit_what_a_layer_sees():
    """Two layers, the first short: through value and smear paths a token reaches window + 1 + 1
    back, not more.
    """
    model = small("modern", sequence_len=512, n_layer=2, window_pattern="SL")
    assert model.config.window(0) == 128
    ids = torch.randint(0, 100, (1, 300))
    seen: list[torch.Tensor] = []
    model.transformer.h[0].register_forward_hook(
        lambda module, args, out: seen.append(out.detach())
    )
    changed = ids.clone()
    changed[0, 50] = (changed[0, 50] + 1) % 100
    with torch.no_grad():
        model(ids), model(changed)
    differs = (seen[0] != seen[1]).any(dim=-1)[0].nonzero().flatten().tolist()
    assert min(differs) == 50 and 50 + 128 + 1 >= max(differs) >= 50 + 128


@pytest.mark.parametrize("generation", GENERATIONS)
def test_attention_backends_agree_through_the_model(generation, monkeypatch):
    model = small(
        generation, sequence_len=512, window_pattern="SL" if generation == "modern" else "L"
    )
    ids = torch.randint(0, 100, (2, 200))
    with torch.no_grad():
        fast = model(ids)
        monkeypatch.setattr(
            "nanochat.gpt.attend", lambda q, k, v, w: attend(q, k, v, w, backend="reference")
        )
        torch.testing.assert_close(fast, model(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_grouped_queries_are_repeated_heads(generation):
    """A model whose k and v matrices are copied for every query head computes the same as one that
    shares them.
    """
    shared = small(generation, n_kv_head=2)
    full = small(generation, n_kv_head=4)
    state = shared.state_dict()
    for name, tensor in state.items():
        if name.endswith(("c_k.weight", "c_v.weight")):
            state[name] = tensor.view(2, 16, 64).repeat_interleave(2, 0).reshape(64, 64)
        elif name.endswith("ve_gate.weight"):
            state[name] = tensor.repeat_interleave(2, 0)
        elif name.startswith("value_embeds"):
            state[name] = tensor.view(-1, 2, 16).repeat_interleave(2, 1).reshape(-1, 64)
    full.load_state_dict(state)
    ids = torch.randint(0, 100, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(shared(ids), full(ids), atol=1e-5, rtol=1e-5)


def test_rotation_keeps_distances():
    cos, sin = rotary_tables(10_000, 64, 50, torch.device("cpu"), exact=True)
    q, k = torch.randn(1, 1, 1, 64), torch.randn(1, 1, 1, 64)

    def at(x, position):
        return rotate(
            x, cos[None, position : position + 1, None], sin[None, position : position + 1, None]
        )

    near, far = (at(q, 5) * at(k, 3)).sum(), (at(q, 42) * at(k, 40)).sum()
    torch.testing.assert_close(near, far)
    torch.testing.assert_close(at(q, 7).norm(), q.norm())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_fresh_weights_follow_the_seed_and_start_even(generation):
    model, again, other = (GPT(small(generation).config) for _ in range(3))
    model.init_weights(1), again.init_weights(1), other.init_weights(2)
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(model.transformer.wte.weight, other.transformer.wte.weight)
    ids = torch.randint(0, 100, (2, 32))
    with torch.no_grad():
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert abs(float(loss) - np.log(100)) < 0.02  # an untrained model knows nothing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_low_precision_stays_near(generation, dtype):
    model, ids = small(generation), torch.randint(0, 100, (2, 20))
    with torch.no_grad():
        exact = model(ids)
        model.compute_dtype = dtype
        near = model(ids)
    assert near.dtype == torch.float32 and (near - exact).abs().mean() < 0.03 * exact.abs().mean()
    assert model.lm_head.weight.dtype == torch.float32  # the weights keep their own precision


@pytest.mark.parametrize("generation", GENERATIONS)
def test_activation_checkpointing_changes_memory_not_results(generation):
    model, ids = small(generation), torch.randint(0, 100, (2, 40))
    losses, grads, saved = [], [], []
    for model.activation_checkpointing in (False, True):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t
        ):
            loss = model(ids[:, :-1]).square().mean()
        model.zero_grad()
        loss.backward()
        losses.append(loss.detach()), saved.append(sum(sizes))
        grads.append([parameter.grad for parameter in model.parameters()])
    assert torch.equal(losses[0], losses[1]) and saved[1] < 0.3 * saved[0]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_rotary_tables_are_made_before_the_model_is_compiled():
    """Inside the compiled region they would be made twice, once for a model without and once for
    one with them.
    """
    model, counter = small("classic"), CompileCounter()
    ForwardPass(model, compile=True)
    compiled = torch.compile(model.hidden, backend=counter, dynamic=False)
    ids = torch.randint(0, 100, (2, 20))
    with torch.no_grad():
        first, again, eager = compiled(ids), compiled(ids), model.hidden(ids)
    assert counter.frame_count == 1
    assert torch.equal(first, eager) and torch.equal(again, eager)


def test_rotary_tables_are_rounded_where_the_config_says_so():
    for rounded in (True, False):
        tables = GPT(replace(small("modern").config, rope_bf16=rounded)).make_rotary()
        for table in tables:
            assert torch.equal(table, table.bfloat16().float()) == rounded
