"""CORE and bits per byte as commands, and CORE of a model in training."""

from __future__ import annotations

import json

import pytest

from nanochat.dataset.shards import write_shards
from nanochat.eval.base_eval import BaseEvalConfig, base_eval, core_metric
from nanochat.eval.base_loss import BaseLossConfig, base_loss


def read(path):
    return json.loads(path.read_text())


def test_base_loss_and_base_eval_share_a_file(checkpoint, base_dir, tmp_path, single, capsys):
    texts = [f"Document {i} about the number {i}." for i in range(60)]
    write_shards(
        base_dir / "base_data",
        texts,
        texts[:20],
        kind="test",
        source="test",
        licence="none",
        seed=0,
    )
    base_loss(BaseLossConfig(split_tokens=2000, device_batch_size=2), single)
    path = base_dir / "base_checkpoints" / "d2" / "base_eval_000005.json"
    assert (
        read(path)["metrics"].keys() == {"train_bpb", "val_bpb"}
        and read(path)["metrics"]["val_bpb"] > 1
    )
    assert "The capital of France is" in capsys.readouterr().out
    bundle = tmp_path / "bundle"
    (bundle / "eval_data").mkdir(parents=True)
    rows = [{"query": f"{i}?", "choices": ["yes", "no"], "gold": i % 2} for i in range(9)]
    (bundle / "eval_data" / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = (
        "- {label: LABEL, dataset_uri: t.jsonl, num_fewshot: [1], icl_task_type: multiple_choice}\n"
    )
    (bundle / "core.yaml").write_text(
        "icl_tasks:\n" + task.replace("LABEL", "one") + task.replace("LABEL", "two")
    )
    (bundle / "eval_meta_data.csv").write_text("Eval Task,Random baseline\none,50\ntwo,50\n")
    base_eval(BaseEvalConfig(max_per_task=6, eval_bundle=str(bundle), tasks="one"), single)
    assert "CORE" not in read(path)["metrics"] and "CORE: not computed" in capsys.readouterr().out
    base_eval(BaseEvalConfig(max_per_task=6, eval_bundle=str(bundle)), single)
    record = read(base_dir / "report" / "base_eval.json")
    assert (
        record["metrics"].keys() == {"CORE", "train_bpb", "val_bpb"} and len(record["tasks"]) == 2
    )
    core = record["metrics"]["CORE"]
    assert core == pytest.approx(sum(entry["centered"] for entry in record["tasks"].values()) / 2)
    base_eval(
        BaseEvalConfig(max_per_task=1, eval_bundle=str(bundle)), single
    )  # of one example: -1 or 1
    assert (
        "keeps the result over 6 problems, not this one over 1" in capsys.readouterr().out
        and abs(core) < 1
    )
    assert read(path)["metrics"]["CORE"] == core and read(path)["tasks"]["two"]["n"] == 6
    assert (
        record["tasks"]["one"]["n"] == 6
        and record["samples"][0]["prompt"] == "The capital of France is"
    )


def test_training_goes_on_without_a_bundle(base_dir, make_model, tokenizer, single, capsys):
    model = make_model().train()
    assert core_metric(model, tokenizer, single, 5) is None and model.training
    assert "CORE is not measured" in capsys.readouterr().err
    bundle = base_dir / "eval_bundle"
    (bundle / "eval_data").mkdir(parents=True)
    (bundle / "eval_data" / "t.jsonl").write_text(
        '{"query": "a", "choices": ["b", "c"], "gold": 0}\n' * 3
    )
    (bundle / "core.yaml").write_text(
        "icl_tasks:\n- {label: one, dataset_uri: t.jsonl, num_fewshot: [0], icl_task_type: "
        "multiple_choice}\n"
    )
    (bundle / "eval_meta_data.csv").write_text("Eval Task,Random baseline\none,50\n")
    assert core_metric(model, tokenizer, single, 5) in (-1.0, 1.0) and model.training
