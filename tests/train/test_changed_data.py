"""Data that is edited between a stop and `--resume` is noticed, whatever its number of rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_trainer import stage_config
from tiny_rl import TINY, FirstLetter, save_sft
from tiny_runs import base_config, sentences

from nanochat.checkpoint_manager import checkpoint_dir, complete_steps, read_meta, write_meta
from nanochat.dataset.shards import write_shards
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl_tasks, stages

ABOUT = {"kind": "own text", "source": "test", "licence": "none"}


def edit_chats(data):
    """One letter of one row."""
    path = data / "chats.jsonl"
    rows = path.read_text().splitlines()
    row = json.loads(rows[7])
    text = row[1]["content"]
    row[1]["content"] = text[:-2] + ("z" if text[-2] != "z" else "y") + text[-1]
    path.write_text("\n".join([*rows[:7], json.dumps(row), *rows[8:]]) + "\n")


def edit_shards(data, training=True):
    """One letter of one document, in the training shard or in the one for validation."""
    train, held_out = sentences(400, 1), sentences(40, 2)
    changed = train if training else held_out
    changed[5] = "X" + changed[5][1:]
    write_shards(data / "base_data", train, held_out, **ABOUT)


@pytest.mark.parametrize("stage", ["mid", "sft"])
def test_an_edited_conversation_is_named(data, single, stage):
    stages.base(base_config(num_iterations=1), single)
    run = getattr(stages, stage)
    run(stage_config(stage, data, save_every=3), single)
    run(stage_config(stage, data, save_every=3, resume_from_step=3), single)  # nothing has changed
    edit_chats(data)
    with pytest.raises(ValueError, match=r"cannot resume on other data .*chats.jsonl has changed"):
        run(stage_config(stage, data, save_every=3, resume=True), single)


@pytest.mark.parametrize("training", [True, False])
def test_an_edited_shard_is_named(data, single, training):
    stages.base(base_config(save_every=3), single)
    edit_shards(data, training)
    name = "shard_00000.parquet" if training else "shard_00001.parquet"
    with pytest.raises(ValueError, match=rf"cannot resume on other data .{name} has changed"):
        stages.base(base_config(save_every=3, resume=True), single)
    assert complete_steps(data / "base_checkpoints" / "t") == [3, 6]


def test_a_shard_that_has_come_or_gone_is_named(data, single):
    stages.base(base_config(), single)
    meta = read_meta(checkpoint_dir("base", "t"), 6)
    digests = dict(meta["data"])
    one = digests.pop("shard_00000.parquet")
    write_meta(
        checkpoint_dir("base", "t"), 6, {**meta, "data": {**digests, "shard_9.parquet": one}}
    )
    with pytest.raises(ValueError, match="shard_9.parquet is gone; shard_00000.parquet is new"):
        stages.base(base_config(resume=True), single)


def test_checkpoints_that_do_not_say_can_be_resumed(data, single):
    stages.base(base_config(save_every=3), single)
    for step in (3, 6):
        meta = read_meta(checkpoint_dir("base", "t"), step)
        del meta["data"]
        write_meta(checkpoint_dir("base", "t"), step, meta)
    stages.base(base_config(save_every=3, resume_from_step=3), single)


@pytest.mark.parametrize("what", ["question", "starting model"])
def test_reinforcement_learning_notices_too(base_dir, single, monkeypatch, what):
    """Its questions, and the model that it is pulled towards."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    tokenizer = Tokenizer.byte_level()
    save_sft(tokenizer)
    task = FirstLetter(20)
    asked = rl_tasks.Questions(task, {"letters": FirstLetter(4)})
    monkeypatch.setattr(stages, "questions", lambda *args: asked)
    cfg = replace(TINY, num_iterations=2, save_every=1, eval_every=0, tag_out="x")
    stages.rl(cfg, single)
    stages.rl(replace(cfg, resume_from_step=1), single)
    if what == "question":
        get = FirstLetter.__getitem__

        def other(self, index):
            row = get(self, index)
            row["messages"][0]["content"] += "!" * (index == 3)
            return row

        monkeypatch.setattr(FirstLetter, "__getitem__", other)
        said = "letters has changed"
    else:
        from nanochat.checkpoint_manager import load_checkpoint, save_checkpoint

        state, _, meta = load_checkpoint(checkpoint_dir("sft", "d2"), 7, "cpu")
        state["lm_head.weight"][0] += 1
        save_checkpoint(checkpoint_dir("sft", "d2"), 7, state, None, meta)
        said = "the starting model has changed"
    with pytest.raises(ValueError, match=said):
        stages.rl(replace(cfg, resume=True), single)
