"""Rows longer than the source's context give a model with that context; shorter ones leave it as it
is.
"""

from __future__ import annotations

import pytest
import torch
from tiny_runs import base_config

from nanochat.checkpoint_manager import checkpoint_dir, load_model, read_meta
from nanochat.engine import Engine
from nanochat.train import stages
from nanochat.train.configs import MidConfig, SFTConfig


def config(kind, base_dir, **changes):
    settings = dict(
        device_batch_size=2,
        total_batch_size=256,
        num_iterations=2,
        eval_every=0,
        eval_tokens=64,
        sample_every=-1,
        device_type="cpu",
        model_tag="t",
        mixture="none",
        data=[str(base_dir / "chats.jsonl")],
    )
    return kind(**{**settings, **changes})


@pytest.fixture
def base(data, single):
    """A base model with windows and a context of 128 tokens."""
    stages.base(
        base_config(
            depth=2, window_pattern="SL", num_iterations=1, max_seq_len=128, device_batch_size=1
        ),
        single,
    )
    return data


def test_longer_rows_make_the_context_longer_for_chat_and_the_next_stage(base, single, capsys):
    stages.mid(config(MidConfig, base, max_seq_len=256, save_every=1), single)
    assert "its context grows from 128 to 256 tokens" in capsys.readouterr().out
    meta = read_meta(checkpoint_dir("mid", "t"), 2)
    assert meta["max_seq_len"] == meta["model_config"]["sequence_len"] == 256
    stages.mid(config(MidConfig, base, max_seq_len=256, save_every=1, resume_from_step=1), single)
    record = stages.sft(config(SFTConfig, base), single)
    assert record["settings"]["seq_len"] == 256
    model, tokenizer, _ = load_model("sft", "cpu")
    engine = Engine(model, tokenizer)
    assert engine.context == 256
    prompt = tokenizer.encode("a" * 200)
    [row], _ = engine.generate_batch(prompt, max_tokens=20, temperature=0.0)
    assert len(row) > len(prompt), "it fits, and is answered"


def test_shorter_rows_leave_the_context(base, single, capsys):
    stages.sft(config(SFTConfig, base, source="base", max_seq_len=64), single)
    assert "its context" not in capsys.readouterr().out
    meta = read_meta(checkpoint_dir("sft", "t"), 2)
    assert meta["max_seq_len"] == 64 and meta["model_config"]["sequence_len"] == 128
    assert meta["model_config"] == read_meta(checkpoint_dir("base", "t"), 1)["model_config"]


def test_within_the_old_context_a_longer_model_computes_what_it_did(base):
    """With windows that followed the context, as those of a fresh model do, old texts would be read
    another way.
    """
    ids = torch.randint(0, 200, (1, 1000))
    old, _, _ = load_model("base", "cpu", "train", context_tokens=64)
    new, _, meta = load_model("base", "cpu", "train", context_tokens=1024)
    newer = meta["model_config"]
    assert old.config.sequence_len == 128 and newer["sequence_len"] == 1024
    assert (
        [old.config.window(layer) for layer in (0, 1)]
        == [new.config.window(layer) for layer in (0, 1)]
        == [128, -1]
    )
    with torch.no_grad():
        for parameter in (
            old.parameters()
        ):  # a fresh model's projections are zero: it would see nothing of attention
            parameter.normal_(0.0, 0.1)
        new.load_state_dict(old.state_dict())
        assert torch.equal(old(ids), new(ids))
