"""`nanochat sql train`: a new checkpoint beside the old one, both examined."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from nanochat.checkpoint_manager import checkpoint_dir, complete_steps, read_meta, save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.world import World
from nanochat.sql.shop import SQLShopConfig, sql_shop
from nanochat.sql.sql_build import SQLBuildConfig, sql_build
from nanochat.tokenizer import Tokenizer
from nanochat.train.sql_train import SQLTrainConfig, sql_train

WORLD = World(0, 0, 1, torch.device("cpu"))


@pytest.fixture
def model(base_dir):
    """An untrained sft checkpoint, tag d2, step 5."""
    tokenizer = Tokenizer.byte_level()
    config = GPTConfig.preset(
        "classic",
        sequence_len=512,
        vocab_size=tokenizer.get_vocab_size(),
        n_layer=2,
        n_head=1,
        n_kv_head=1,
        n_embd=64,
    )
    made = GPT(config)
    made.init_weights()
    directory = checkpoint_dir("sft", "d2")
    meta = {
        "model_config": asdict(config),
        "tokenizer": tokenizer.identity(),
        "user_config": {"init_lr_frac": 0.5},
        "total_batch_size": 512,
    }
    save_checkpoint(directory, 5, made.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")
    return directory


def test_before_and_after(model, base_dir, capsys) -> None:
    sql_shop(SQLShopConfig(queries=30))
    data = sql_build(SQLBuildConfig(dialect="sqlite", distractors=0, test_share=0.2))
    config = SQLTrainConfig(
        data=str(data),
        source="sft:d2:5",
        mixture="none",
        num_iterations=1,
        task_name="world-arithmetic",
        max_problems=2,
        max_new_tokens=4,
        unsafe_exec=True,
        device_type="cpu",
    )
    assert not config.problems()
    record = sql_train(config, WORLD)
    said = capsys.readouterr().out
    new = checkpoint_dir("sft", "d2-sql")
    meta = read_meta(new, complete_steps(new)[-1])
    assert meta["user_config"]["source"] == "sft"
    assert meta["user_config"]["step"] == 5
    assert meta["user_config"]["init_lr_frac"] == 0.5
    verdict = said.index("A: sft:d2:5\nB: sft:d2-sql:1")
    assert said.index("peak memory") < said.index("SQL: ") < verdict
    assert "forgotten: nothing beyond noise" in said
    assert set(record["tasks"]) == {"SQL", "World-arithmetic"}
    assert json.loads((base_dir / "report" / "sql_train.json").read_text()) == record


def test_all_problems_are_told_at_once(base_dir) -> None:
    found = SQLTrainConfig(source="sft d34", share=1.0, exposures=0, max_problems=0).problems()
    assert [line.split("=")[0] for line in found] == [
        "--max-problems",
        "--share",
        "--exposures",
        "--from",
    ]


def test_a_missing_file_is_told_before_anything(model) -> None:
    with pytest.raises(ValueError, match="nanochat sql build"):
        sql_train(SQLTrainConfig(data="absent.jsonl", device_type="cpu"), WORLD)
    assert not checkpoint_dir("sft", "d2-sql").exists()
