"""Chat evaluation as a command: what is run, what is said, what is left behind."""

from __future__ import annotations

import json

import pytest

from nanochat.dataset.shards import write_manifest
from nanochat.eval.base_eval import BaseEvalConfig, base_eval
from nanochat.eval.base_loss import BaseLossConfig, base_loss
from nanochat.eval.chat_eval import ChatEvalConfig, chat_eval, open_tasks, task_names
from nanochat.eval.compare import find_results
from nanochat.eval.suite import choose_problems, run_chat_eval
from nanochat.report.generate import generate
from nanochat.tasks.catalogue import CHATCORE, WORLD
from nanochat.tasks.sandbox import find_cage


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
    assert read(path)["tasks"] == full and few["ARC-Easy"]["n"] == few["GSM8K"]["n"] == 3
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
    assert set(open_tasks(ChatEvalConfig())[0]) == {"ARC-Easy", "GSM8K", "SpellingBee"}
    (base_dir / "base_data").mkdir()
    write_manifest(base_dir / "base_data", [], kind="embedded")
    assert set(open_tasks(ChatEvalConfig())[0]) == {
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
        open_tasks(ChatEvalConfig(task_name="HumanEval"))
    assert "HumanEval" in open_tasks(ChatEvalConfig(task_name="HumanEval", unsafe_exec=True))[0]
    assert "no sandbox" in open_tasks(ChatEvalConfig())[1]["HumanEval"]


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


def test_a_task_without_problems_is_no_result(checkpoint, make_model, tokenizer, single):
    class Empty:
        eval_type = "categorical"
        baseline = 0.25

        def __len__(self) -> int:
            return 0

    with pytest.raises(ValueError, match="Nothing: no problems, so there is nothing to score"):
        run_chat_eval(make_model(), tokenizer, {"Nothing": Empty()}, single)
    assert not list(checkpoint.glob("chat_eval*"))


def test_missing_checkpoint_and_bundle_are_one_line(base_dir, single):
    with pytest.raises(ValueError, match="no rl checkpoint .*scripts.chat_rl"):
        chat_eval(ChatEvalConfig(source="rl", task_name="SpellingBee"), single)
    with pytest.raises(ValueError, match="eval_bundle"):
        base_eval(BaseEvalConfig(), single)
    with pytest.raises(ValueError, match="no text shards"):
        base_loss(BaseLossConfig(), single)


def test_questions_about_databases_are_told_in_parts(
    checkpoint, base_dir, single, capsys, tmp_path
):
    pytest.importorskip("sqlglot", reason="sqlglot is not installed")
    if find_cage()[0] is None:
        pytest.skip(f"no cage: {find_cage()[1]}")
    asked = {"role": "user", "content": "CREATE TABLE a (b int)\n\nHow many?"}
    row = {"messages": [asked, {"role": "assistant", "content": "SELECT COUNT(*) FROM a"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    file = str(tmp_path / "a.jsonl")
    chat_eval(ChatEvalConfig(task_name="sql", sql_data=file, max_new_tokens=4), single)
    entry = read(base_dir / "report" / "chat_eval_sft.json")["tasks"]["SQL"]
    assert entry["parts"]["measure"]["executable"]["n"] == 1
    assert entry["cases"][0]["expected"] == "SELECT COUNT(*) FROM a"
    assert "measure execution match: 0.0000" in capsys.readouterr().out
    assert "SQL in parts" in (generate().read_text())
