"""The stage of reinforcement learning: it learns, leaves what every stage leaves, and checks its
settings.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_rl import TINY, FirstLetter, save_sft, world

from nanochat.checkpoint_manager import checkpoint_dir, load_model, read_meta
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl_tasks, stages
from nanochat.train.rl_configs import RLConfig


@pytest.fixture
def sft(base_dir, monkeypatch):
    """A checkpoint to start from, and questions of our own."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    save_sft(Tokenizer.byte_level())
    asked = rl_tasks.Questions(FirstLetter(40), {"letters": FirstLetter(10)})
    monkeypatch.setattr(stages, "questions", lambda *args: asked)


def test_it_learns_and_leaves_what_every_stage_leaves(sft, base_dir):
    cfg = replace(TINY, num_iterations=25, init_lr_frac=0.1, max_new_tokens=2, num_samples=16)
    record = stages.rl(cfg, world())
    rows = [
        json.loads(line)
        for line in (base_dir / "chatrl_checkpoints/d2/metrics.jsonl").read_text().splitlines()
    ]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert len(rewards) == 25 and sum(rewards[:3]) / 3 < 0.4 and sum(rewards[-3:]) / 3 > 0.8, (
        rewards
    )
    assert all({"length_tokens", "entropy", "kl"} <= set(row) for row in rows if "reward" in row)
    assert record["metrics"]["pass@1"] > record["metrics"]["pass@1 before"] + 0.5
    assert {"prompt", "completion", "reward"} == set(record["samples"][0])
    meta = read_meta(checkpoint_dir("rl", "d2"), 25)
    assert (
        meta["stage"] == "rl"
        and meta["parent"]["step"] == 7
        and meta["user_config"]["num_samples"] == 16
    )
    assert load_model("rl", "cpu")[2]["metrics"]["pass@1"] == record["metrics"]["pass@1"]
    assert json.loads((base_dir / "report/chat_rl.json").read_text())["samples"]


def test_settings_are_checked_together():
    cfg = RLConfig(
        task="GSM9K", num_samples=1, clip_ratio=0.0, total_batch_size=1024, max_seq_len=64
    )
    text = "\n".join(cfg.problems())
    for part in (
        "--task=GSM9K",
        "--num-samples=1",
        "--clip-ratio=0.0",
        "--total-batch-size",
        "--max-seq-len",
    ):
        assert part in text
    assert (
        RLConfig().problems() == []
        and RLConfig(task="world-counting-without-tool|gsm8k").problems() == []
    )


def test_tasks_come_with_held_out_questions():
    asked = rl_tasks.questions(
        "World-arithmetic-without-tool|SpellingBee-without-tool|World-spelling", 1
    )
    assert list(asked.held_out) == [
        "World-arithmetic-without-tool",
        "SpellingBee-without-tool",
        "World-spelling",
    ]
    assert asked.held_out["SpellingBee-without-tool"][0]["tool"] is False
    learned = {asked.train[i]["messages"][-2]["content"] for i in range(300)}
    examined = {
        task[i]["messages"][-2]["content"] for task in asked.held_out.values() for i in range(100)
    }
    assert not learned & examined


def test_auto_without_gsm8k_is_the_world_and_says_so(monkeypatch):
    for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    asked = rl_tasks.questions("auto", 1, "cpu")
    assert asked.train.name == "World-counting-without-tool"
    assert "--task=auto" in asked.notice and "learns World-counting-without-tool" in asked.notice
    assert "GSM8K train not found" in asked.notice and "to get it" in asked.notice
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with pytest.raises(ValueError, match="GSM8K train not found.*\n.*a SLURM job"):
        rl_tasks.questions("auto", 1, "cpu")
