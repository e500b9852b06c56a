"""From accepted feedback to a checkpoint beside the old one, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from nanochat.checkpoint_manager import checkpoint_dir, complete_steps, read_meta, save_checkpoint
from nanochat.eval.compare import Difference
from nanochat.feedback.feedback_export import conversation, line
from nanochat.feedback.feedback_train import (
    FeedbackTrainConfig,
    feedback_train,
    judged,
    same_answer,
)
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.added_data import free_tag

WORLD = World(0, 0, 1, torch.device("cpu"))


@pytest.fixture
def old_model(base_dir):
    """An untrained sft checkpoint, tag d2, step 5."""
    tokenizer = Tokenizer.byte_level()
    config = GPTConfig.preset(
        "classic",
        sequence_len=256,
        vocab_size=tokenizer.get_vocab_size(),
        n_layer=2,
        n_head=1,
        n_kv_head=1,
        n_embd=64,
    )
    model = GPT(config)
    model.init_weights()
    directory = checkpoint_dir("sft", "d2")
    meta = {
        "model_config": asdict(config),
        "tokenizer": tokenizer.identity(),
        "user_config": {"init_lr_frac": 1.0},
        "total_batch_size": 512,
    }
    save_checkpoint(directory, 5, model.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")
    return directory


def test_a_new_checkpoint_beside_the_old_one_and_a_verdict(old_model, tmp_path, capsys):
    data = tmp_path / "conversations.jsonl"
    rows = [conversation([{"role": "user", "content": f"{x}?"}], x * 4) for x in "abcd"]
    data.write_text("".join(map(line, rows)))
    before = sorted(path.name for path in old_model.iterdir())
    config = FeedbackTrainConfig(
        data=data,
        mixture="none",
        exposures=8,
        device_batch_size=2,
        task_name="world-arithmetic",
        max_problems=4,
        max_new_tokens=16,
        device_type="cpu",
    )
    assert not config.problems()
    code = feedback_train(config, WORLD)
    said = capsys.readouterr().out
    new = checkpoint_dir("sft", "d2-feedback")
    step = complete_steps(new)[-1]
    meta = read_meta(new, step)
    assert meta["user_config"]["source"] == "sft" and meta["user_config"]["step"] == 5
    assert meta["user_config"]["init_lr_frac"] == 1.0
    assert f"A: sft:d2:5\nB: sft:d2-feedback:{step}\n" in said
    assert "answers as in the feedback: A 0 of 4, B " in said
    verdict = [found for found in said.splitlines() if "to serve:" in found]
    assert verdict[0].startswith(("SAFE", "CANNOT TELL", "NOT SAFE"))
    assert (code == 0) == verdict[0].startswith("SAFE")
    assert [name for name in before if not (old_model / name).exists()] == []
    results = json.loads((new / f"chat_eval_{step:06d}.json").read_text())
    assert list(results["tasks"]) == ["World-arithmetic"]
    assert free_tag("sft", "d2-feedback") == "d2-feedback2"


def test_nothing_is_trained_without_feedback_or_model(given, old_model, base_dir):
    config = FeedbackTrainConfig(database=given.url, mixture="none")
    with pytest.raises(ValueError, match="nothing accepted"):
        feedback_train(config, WORLD)
    with pytest.raises(ValueError, match="d9"):
        feedback_train(FeedbackTrainConfig(database=given.url, model_tag="d9"), WORLD)
    assert [path.name for path in old_model.parent.iterdir()] == ["d2"]
    wrong = {"share": 1.0, "exposures": 0, "alpha": 0, "margin": 2, "retain_days": 0}
    for name, value in {**wrong, "init_lr_frac": 0, "max_problems": 0}.items():
        assert FeedbackTrainConfig(**{name: value}).problems(), name


def difference(task: str, b: float, low: float, high: float, p: float) -> Difference:
    return Difference(task=task, n=9, a=0.5, b=b, low=low, high=high, p=p, p_corrected=p)


def test_the_verdict():
    fine = difference("t", 0.51, -0.02, 0.04, 0.4)
    worse = difference("u", 0.30, -0.3, -0.1, 0.001)
    wide = difference("mean, centred", 0.49, -0.09, 0.07, 0.8)
    better = difference("mean, centred", 0.9, 0.3, 0.5, 0.001)
    assert judged([fine], 0.05, 0.03)[0] == "safe"
    verdict, reason = judged([fine, worse, better], 0.05, 0.03)
    assert verdict == "not safe" and reason.endswith("on u")
    verdict, reason = judged([fine, wide], 0.05, 0.03)
    assert verdict == "cannot tell" and "examine more problems" in reason
    assert judged([better, fine], 0.05, 0.03)[0] == "safe"


def test_what_counts_as_the_same_answer():
    assert same_answer(" The Capital is  X.", "the capital is X")
    assert same_answer("4", [{"type": "python", "text": "2+2"}, {"type": "text", "text": "4."}])
    assert not same_answer("The capital is Y", "the capital is X")
