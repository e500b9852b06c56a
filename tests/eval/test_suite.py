"""The evaluation commands: what is run, what is said, what is left behind."""

from __future__ import annotations

import json

import pytest

from nanochat.checkpoint_manager import save_checkpoint
from nanochat.dataset.shards import write_shards
from nanochat.eval import suite
from nanochat.eval.base_suite import BaseEvalConfig, BaseLossConfig, base_eval, base_loss
from nanochat.eval.compare import find_results
from nanochat.eval.suite import (
    ChatEvalConfig,
    chat_eval,
    choose_problems,
    task_names,
)
from nanochat.tasks.catalogue import CHATCORE, WORLD


@pytest.fixture
def checkpoint(base_dir, make_model, tokenizer):
    """An untrained sft and base checkpoint, and some task data."""
    model = make_model(context=192)
    for folder in ("chatsft_checkpoints", "base_checkpoints"):
        directory = base_dir / folder / "d2"
        save_checkpoint(
            directory, 5, model.state_dict(), None, {"model_config": model.config.to_dict()}
        )
        tokenizer.save(directory / "tokenizer")
    arc = [
        {
            "question": {
                "stem": f"{i}?",
                "choices": [{"text": t, "label": c} for t, c in zip("xyzw", "ABCD", strict=True)],
            },
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(30)
    ]
    for name, rows in {
        "arc/ARC-Easy/test": arc,
        "gsm8k/test": [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(6)],
    }.items():
        path = base_dir / "task_data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return base_dir / "chatsft_checkpoints" / "d2"


def read(path):
    return json.loads(path.read_text())


def test_absent_data_is_said_loudly_and_left_out(checkpoint, base_dir, single, capsys):
    chat_eval(ChatEvalConfig(max_problems=4, max_new_tokens=4), single)
    said = capsys.readouterr()
    for name in ("ARC-Challenge", "MMLU", "HumanEval"):
        assert f"{name} test not found" in said.err and f"{name}: NOT FOUND" in said.out
    assert "ChatCORE: not computed, without ARC-Challenge, MMLU, HumanEval" in said.out
    record = read(base_dir / "report" / "chat_eval_sft.json")
    assert set(record["tasks"]) == {"ARC-Easy", "GSM8K", "SpellingBee"} and set(
        record["not_found"]
    ) == {
        "ARC-Challenge",
        "MMLU",
        "HumanEval",
    }
    entry = record["tasks"]["ARC-Easy"]
    assert (
        entry["n"] == 4
        and entry["low"] <= entry["score"] <= entry["high"]
        and "problems" not in entry
    )
    assert isinstance(entry["correct"], int) and record["samples"][0].keys() >= {
        "task",
        "prompt",
        "completion",
    }


def test_asking_for_absent_data_is_an_error_and_nothing_is_written(checkpoint, base_dir, single):
    with pytest.raises(ValueError, match="MMLU test not found .*download_after_basetraining.sh"):
        chat_eval(ChatEvalConfig(task_name="ARC-Easy|MMLU"), single)
    assert not (base_dir / "report").exists() and not list(checkpoint.glob("chat_eval*"))


def test_results_say_what_was_evaluated_and_add_up(checkpoint, tokenizer, single):
    chat_eval(ChatEvalConfig(task_name="arc-easy"), single)
    path = checkpoint / "chat_eval_000005.json"
    first = read(path)
    assert (
        first["checkpoint_sha256"]
        == read(checkpoint / "meta_000005.json")["files"]["model_000005.pt"]["sha256"]
    )
    assert first["tokenizer"] == tokenizer.identity() and first["packages"]["torch"]
    entry = first["tasks"]["ARC-Easy"]
    assert len(entry["correct"]) == 30 and entry["settings"]["task_name"] == "arc-easy"
    chat_eval(
        ChatEvalConfig(task_name="GSM8K", num_samples=3, temperature=1.0, max_new_tokens=4), single
    )
    second = read(path)
    assert second["tasks"]["ARC-Easy"] == entry and second["tasks"]["GSM8K"]["pass_at"].keys() == {
        "1",
        "2",
        "3",
    }
    assert find_results("sft")["tasks"].keys() == {"ARC-Easy", "GSM8K"}
    # other weights under the same step: what was known of the old ones goes
    second["checkpoint_sha256"] = "0"
    path.write_text(json.dumps(second))
    chat_eval(ChatEvalConfig(task_name="GSM8K", max_problems=1, max_new_tokens=2), single)
    assert read(path)["tasks"].keys() == {"GSM8K"}


def test_a_look_at_few_problems_does_not_replace_many(checkpoint, single, capsys):
    path = checkpoint / "chat_eval_000005.json"
    chat_eval(ChatEvalConfig(task_name="arc-easy|gsm8k", max_new_tokens=4), single)
    full = read(path)["tasks"]
    capsys.readouterr()
    few = chat_eval(
        ChatEvalConfig(task_name="arc-easy|gsm8k", max_new_tokens=4, max_problems=3), single
    )
    said = capsys.readouterr().out
    assert read(path)["tasks"] == full == few["tasks"]
    for name, n in (("ARC-Easy", 30), ("GSM8K", 6)):
        assert (
            f"{name}: {path} keeps the result over {n} problems, not this one over 3" in said
            and " of 3\n" in said
        )
    # other settings are another result, except that they do not matter where letters are compared
    chat_eval(ChatEvalConfig(task_name="arc-easy|gsm8k", max_new_tokens=2, max_problems=3), single)
    assert {name: entry["n"] for name, entry in read(path)["tasks"].items()} == {
        "ARC-Easy": 30,
        "GSM8K": 3,
    }
    chat_eval(ChatEvalConfig(task_name="gsm8k", max_new_tokens=2, max_problems=4), single)
    used = read(path)["tasks"]["ARC-Easy"]["settings"]["compute_dtype"]
    other = "bfloat16" if used == "torch.float32" else "float32"
    chat_eval(ChatEvalConfig(task_name="arc-easy", dtype=other, max_problems=5), single)
    assert {name: entry["n"] for name, entry in read(path)["tasks"].items()} == {
        "ARC-Easy": 5,
        "GSM8K": 4,
    }


def test_a_task_that_became_smaller_replaces_the_larger_one(checkpoint, base_dir, single):
    chat_eval(ChatEvalConfig(task_name="gsm8k", max_new_tokens=2), single)
    file = base_dir / "task_data" / "gsm8k" / "test.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    chat_eval(ChatEvalConfig(task_name="gsm8k", max_new_tokens=2), single)
    assert read(checkpoint / "chat_eval_000005.json")["tasks"]["GSM8K"]["n"] == 2


def test_the_exam(checkpoint, base_dir, single, capsys):
    chat_eval(
        ChatEvalConfig(task_name="world", max_problems=3, max_new_tokens=4, dtype="float32"), single
    )
    exam = read(base_dir / "report" / "exam.json")
    assert list(exam["tasks"]) == list(WORLD) and all(
        entry["n"] == 3 for entry in exam["tasks"].values()
    )
    assert "World-spelling" in capsys.readouterr().out


def test_a_model_of_the_embedded_world_gets_the_exam_unasked(checkpoint, base_dir):
    assert set(suite.open_tasks(ChatEvalConfig())[0]) == {"ARC-Easy", "GSM8K", "SpellingBee"}
    (base_dir / "base_data").mkdir()
    (base_dir / "base_data" / "manifest.json").write_text(
        json.dumps({"kind": "embedded", "shards": []})
    )
    assert set(suite.open_tasks(ChatEvalConfig())[0]) == {
        "ARC-Easy",
        "GSM8K",
        "SpellingBee",
        *WORLD,
    }


def test_humaneval_without_a_sandbox_is_refused_before_answers_are_written(
    checkpoint, base_dir, monkeypatch
):
    from nanochat.tasks import sandbox

    folder = base_dir / "task_data" / "humaneval"
    folder.mkdir()
    row = {"prompt": "def f():\n", "entry_point": "f", "canonical_solution": " pass", "test": "x"}
    (folder / "HumanEval.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(sandbox, "find_cage", lambda: (None, "no namespaces"))
    with pytest.raises(ValueError, match="no sandbox can be built here"):
        suite.open_tasks(ChatEvalConfig(task_name="HumanEval"))
    assert (
        "HumanEval" in suite.open_tasks(ChatEvalConfig(task_name="HumanEval", unsafe_exec=True))[0]
    )
    assert "no sandbox" in suite.open_tasks(ChatEvalConfig())[1]["HumanEval"]


def test_names():
    assert task_names("GSM8K| mmlu") == ["GSM8K", "MMLU"] and task_names(None) is None
    assert task_names("world|World-facts|chatcore") == [*WORLD, *CHATCORE]
    for bad in ("nope|GSM8K", "|"):
        with pytest.raises(ValueError, match="use one of ARC-Easy, ARC-Challenge"):
            task_names(bad)


def test_problems_of_a_config_come_together():
    found = ChatEvalConfig(
        task_name="x", num_samples=0, temperature=-1.0, max_problems=0
    ).problems()
    assert len(found) == 4 and all(problem.startswith("--") for problem in found)
    assert (
        BaseEvalConfig(max_per_task=0, max_tokens=-5).problems()
        and BaseLossConfig(device_batch_size=0).problems()
    )
    assert (
        not ChatEvalConfig().problems() + BaseEvalConfig().problems() + BaseLossConfig().problems()
    )


def test_subsets_are_fixed_nested_and_spread():
    assert choose_problems(5, None) == [0, 1, 2, 3, 4] == choose_problems(5, 9)
    small, large = choose_problems(1000, 50), choose_problems(1000, 100)
    assert large[:50] == small and len(set(small)) == 50 and max(small) > 900 and min(small) < 100


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
    assert suite.core_metric(model, tokenizer, single, 5) is None and model.training
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
    assert suite.core_metric(model, tokenizer, single, 5) in (-1.0, 1.0) and model.training


def test_missing_checkpoint_and_bundle_are_one_line(base_dir, single):
    with pytest.raises(ValueError, match="no rl checkpoint .*scripts.chat_rl"):
        chat_eval(ChatEvalConfig(source="rl", task_name="SpellingBee"), single)
    with pytest.raises(ValueError, match="eval_bundle"):
        base_eval(BaseEvalConfig(), single)
    with pytest.raises(ValueError, match="no text shards"):
        base_loss(BaseLossConfig(), single)
