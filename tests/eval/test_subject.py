"""What is known before an evaluation starts, and a checkpoint that computes no numbers."""

from __future__ import annotations

import json
import os

import pytest
import torch

from nanochat.dataset.shards import write_shards
from nanochat.engine.finite import NonFiniteLogits
from nanochat.eval.base_eval import BaseEvalConfig, base_eval, core_metric
from nanochat.eval.base_loss import BaseLossConfig, base_loss
from nanochat.eval.chat_eval import ChatEvalConfig, chat_eval
from nanochat.eval.choice import predict_letters
from nanochat.eval.loglikelihood import ScoredRow, score_groups
from nanochat.eval.results import scored
from nanochat.eval.tok_eval import TokEvalConfig, tok_eval
from nanochat.serve.terminal import ChatCLIConfig, chat_cli

ASKED = ChatEvalConfig(task_name="arc-easy", max_problems=5)


@pytest.fixture
def closed(monkeypatch):
    """Makes folders read-only. Root may write anywhere, so files are refused where they are
    made.
    """
    folders = []
    opened = os.open

    def refuse(path, flags, *args, **kwargs):
        makes = flags & (os.O_CREAT | os.O_TMPFILE)
        if makes and any(f"{path}/".startswith(f"{folder}/") for folder in folders):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    return folders


def bundle_in(base_dir):
    bundle = base_dir / "eval_bundle"
    (bundle / "eval_data").mkdir(parents=True)
    row = {"query": "a", "choices": ["b", "c"], "gold": 0}
    (bundle / "eval_data" / "t.jsonl").write_text((json.dumps(row) + "\n") * 3)
    (bundle / "core.yaml").write_text(
        "icl_tasks:\n- {label: one, dataset_uri: t.jsonl, num_fewshot: [0], "
        "icl_task_type: multiple_choice}\n"
    )
    (bundle / "eval_meta_data.csv").write_text("Eval Task,Random baseline\none,50\n")


def text_in(base_dir):
    texts = [f"Document {i} about the number {i}." for i in range(60)]
    facts = {"kind": "test", "source": "test", "licence": "none", "seed": 0}
    write_shards(base_dir / "base_data", texts, texts[:20], **facts)


def test_a_folder_that_may_only_be_read_is_known_at_the_start(
    checkpoint, base_dir, single, closed, capsys
):
    closed += [checkpoint, base_dir / "report"]
    (base_dir / "report").mkdir()
    chat_eval(ASKED, single)
    said = capsys.readouterr()
    for folder in closed:
        warning = f"warning: {folder}: cannot be written"
        assert said.err.index(warning) < said.err.index("ARC-Easy"), "before the work"
        assert not list(folder.glob("chat_eval*"))
    assert "results are printed, not saved there" in said.err
    assert "ARC-Easy  0." in said.out
    assert f"results: not in {checkpoint}/chat_eval_000005.json" in said.out


def test_one_closed_folder_does_not_keep_the_other_from_its_part(
    checkpoint, base_dir, single, closed, capsys
):
    closed.append(checkpoint)
    chat_eval(ASKED, single)
    assert (base_dir / "report" / "chat_eval_sft.json").is_file()
    closed[:] = [base_dir / "report"]
    chat_eval(ASKED, single)
    assert (checkpoint / "chat_eval_000005.json").is_file()
    text_in(base_dir)
    bundle_in(base_dir)
    closed[:] = [base_dir / "base_checkpoints"]
    base_loss(BaseLossConfig(split_tokens=500, device_batch_size=2), single)
    base_eval(BaseEvalConfig(), single)
    said = capsys.readouterr().out
    assert "val bits per byte: " in said and "CORE " in said
    assert (base_dir / "report" / "base_eval.json").is_file()


def test_a_tokenizer_is_measured_where_nothing_can_be_saved(base_dir, tokenizer, closed, capsys):
    tokenizer.save(base_dir / "tokenizer")
    closed.append(base_dir)
    tok_eval(TokEvalConfig())
    said = capsys.readouterr()
    assert f"warning: {base_dir}/report: cannot be written" in said.err
    assert "bytes per token" in said.out and not (base_dir / "report").exists()


def test_results_are_printed_before_a_full_disk_shows(checkpoint, single, monkeypatch, capsys):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        chat_eval(ASKED, single)
    assert "ARC-Easy  0." in capsys.readouterr().out


def test_damaged_earlier_results_are_said_before_the_work(checkpoint, single, capsys):
    (checkpoint / "chat_eval_000005.json").write_text("{")
    with pytest.raises(ValueError, match="chat_eval_000005.json: not a readable results file"):
        chat_eval(ASKED, single)
    assert capsys.readouterr().out == "", "no model was loaded"


def test_nothing_measured_is_no_score():
    with pytest.raises(ValueError, match="no verdict"):
        scored([], 0.25)


@pytest.mark.parametrize("how", ["weights", "overflow"])
def test_a_diverged_model_is_never_scored(make_model, tokenizer, single, base_dir, capsys, how):
    nan_model = diverged(make_model, how)
    with pytest.raises(NonFiniteLogits):
        score_groups(nan_model, [[ScoredRow([1, 2, 3, 4], 2, 4)]])
    with pytest.raises(NonFiniteLogits):
        predict_letters(nan_model, [[1, 2, 3]], [[65, 66]])
    bundle_in(base_dir)
    assert core_metric(nan_model, tokenizer, single) is None, "a training run goes on"
    assert "CORE is not measured: the model computes logits" in capsys.readouterr().err


def diverged(make_model, how):
    """A model whose weights are no numbers, or one that computes none from weights that are."""
    model = make_model(context=192)
    with torch.no_grad():
        if how == "weights":
            model.lm_head.weight[5, 0] = float("nan")
        else:
            model.transformer.h[0].mlp.c_fc.weight.mul_(1e30)
    return model


@pytest.mark.parametrize("task", ["arc-easy", "gsm8k"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("how", ["weights", "overflow"])
def test_a_diverged_checkpoint_is_an_error_with_its_name(
    checkpoint, base_dir, single, make_model, save, task, temperature, how
):
    save(diverged(make_model, how))
    text_in(base_dir)
    bundle_in(base_dir)
    name = f"^{checkpoint}/model_000005.pt: .* that are not finite"
    with pytest.raises(ValueError, match=name):
        chat_eval(ChatEvalConfig(task_name=task, temperature=temperature), single)
    name = name.replace("chatsft_", "base_")
    with pytest.raises(ValueError, match=name):
        base_loss(BaseLossConfig(split_tokens=500, device_batch_size=2), single)
    with pytest.raises(ValueError, match=name):
        base_eval(BaseEvalConfig(), single)
    assert not list(base_dir.glob("*_checkpoints/d2/*eval*")) and not (base_dir / "report").exists()
    with pytest.raises(ValueError, match=name.replace("base_", "chatsft_")):
        chat_cli(ChatCLIConfig(prompt="hello", temperature=temperature), single)
