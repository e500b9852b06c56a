"""CORE: rendering, the seeded subsets, equality with the recorded results."""

from __future__ import annotations

import json
import re

import pytest

from nanochat.checkpoint_manager import build_model, load_checkpoint
from nanochat.eval import core
from nanochat.eval.core import (
    CoreTask,
    build_rows,
    evaluate_core,
    evaluate_task,
    fewshot_examples,
    render_prompts,
)
from nanochat.eval.results import centered_mean
from nanochat.tokenizer import Tokenizer


def task(kind, delimiter=" ", shots=1, path=None):
    return CoreTask(
        label="t", path=path, kind=kind, num_fewshot=shots, delimiter=delimiter, baseline=0.25
    )


MC = {"query": "Sky?", "choices": ["red", "blue"], "gold": 1}
SCHEMA = {"context_options": ["Ann so Ann", "Ann so Bo"], "continuation": "won.", "gold": 0}
LM = {"context": "The word ", "continuation": "is"}


def test_rendering():
    shot = {**MC, "query": "Sea?", "gold": 0}
    assert render_prompts(task("multiple_choice", "\nA: "), MC, [shot]) == (
        ["Sea?\nA: red\n\nSky?\nA: red", "Sea?\nA: red\n\nSky?\nA: blue"],
        1,
    )
    assert render_prompts(task("schema"), SCHEMA, [SCHEMA]) == (
        ["Ann so Ann won.\n\nAnn so Ann won.", "Ann so Ann won.\n\nAnn so Bo won."],
        0,
    )
    assert render_prompts(task("language_modeling"), LM, [LM]) == (
        ["The word is\n\nThe word", "The word is\n\nThe word is"],
        1,
    )


def test_spans(tokenizer):
    def text(kind, row):
        prompts, _ = render_prompts(task(kind), row, [])
        rows = build_rows(
            task(kind), tokenizer.encode(prompts, prepend=tokenizer.get_bos_token_id())
        )
        return [tokenizer.decode(r.tokens[r.start : r.end]) for r in rows]

    assert text("multiple_choice", MC) == ["red", "blue"]
    assert text("schema", SCHEMA) == [" won.", " won."]  # the options end differently just before
    assert text("language_modeling", LM) == [" is"]


def test_few_shots_come_from_the_subset_and_never_the_item():
    rows = [{"i": i} for i in range(12)]
    for index in range(12):
        shots = fewshot_examples(rows, index, 10)
        assert len(shots) == 10 and rows[index] not in shots
        assert shots == fewshot_examples(rows, index, 10)
    assert len(fewshot_examples(rows[:3], 0, 10)) == 2


def small_bundle(folder, n=40):
    """Three tasks, one of each kind, in the bundle's layout."""
    (folder / "eval_data").mkdir(parents=True)
    kinds = {"multiple_choice": MC, "schema": SCHEMA, "language_modeling": LM}
    lines = ["icl_tasks:"]
    for kind, row in kinds.items():
        lines += ["-", f"  label: my_{kind}", f"  dataset_uri: {kind}.jsonl", "  num_fewshot: [2]"]
        lines.append(f"  icl_task_type: {kind}")
        text_field = {
            "multiple_choice": "query",
            "schema": "continuation",
            "language_modeling": "context",
        }[kind]
        rows = [{**row, text_field: f"{row[text_field]} {i}", "gold": i % 2} for i in range(n)]
        (folder / "eval_data" / f"{kind}.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in rows)
        )
    (folder / "core.yaml").write_text("\n".join(lines) + "\n")
    csv = "Eval Task,Random baseline\n" + "".join(
        f"my_{kind},{50 if kind[0] != 'l' else 0}\n" for kind in kinds
    )
    (folder / "eval_meta_data.csv").write_text(csv)
    return folder


def test_ranks_share_the_work_and_agree(tmp_path, tokenizer, model, single, on_ranks, capsys):
    tasks = core.read_bundle(small_bundle(tmp_path / "bundle"))
    whole = evaluate_core(model, tokenizer, single, tasks, max_per_task=11)
    assert [entry["n"] for entry in whole.values()] == [11, 11, 11]
    entry = whole["my_schema"]
    assert entry["centered"] == pytest.approx((entry["score"] - 0.5) / 0.5)
    for size in (2, 5):
        for found in on_ranks(size, lambda w: evaluate_core(model, tokenizer, w, tasks, 11)):
            assert {label: e["correct"] for label, e in found.items()} == {
                label: e["correct"] for label, e in whole.items()
            }
    assert "CORE my_schema: 22/22" in capsys.readouterr().err


def test_the_size_of_batches_changes_nothing(tmp_path, tokenizer, model, single):
    for spec in core.read_bundle(small_bundle(tmp_path / "bundle")):
        examples = core.read_examples(spec)
        fast = evaluate_task(model, tokenizer, spec, examples, single)
        assert fast == evaluate_task(model, tokenizer, spec, examples, single, max_tokens=1)
        assert len(fast) == 40


def test_a_choice_that_begins_another_cannot_win(tokenizer, model, single):
    row = {"query": "Q", "choices": ["a", "ab"], "gold": 0}
    rows = build_rows(task("multiple_choice"), tokenizer.encode(["Q a", "Q ab"]))
    scores = core.score_groups(model, [rows])[0]
    assert scores[0].n_tokens == 0 and not core.is_correct(
        task("multiple_choice"), scores, row["gold"]
    )


def test_incomplete_bundles_are_refused_whole(tmp_path, base_dir):
    with pytest.raises(
        ValueError,
        match="eval_bundle.* has no core.yaml; to get it, run `bash scripts/download_data.sh`",
    ):
        core.read_bundle()
    bundle = small_bundle(tmp_path / "bundle")
    with pytest.raises(ValueError, match="unknown nope; the bundle has my_multiple_choice"):
        core.read_bundle(bundle, ["nope"])
    (bundle / "eval_data" / "schema.jsonl").unlink()
    (bundle / "eval_meta_data.csv").write_text("Eval Task,Random baseline\nmy_schema,50\n")
    with pytest.raises(ValueError) as caught:
        core.read_bundle(bundle)
    assert "my_schema: " in str(caught.value) and "my_language_modeling: no baseline" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("multiple_choice", {**MC, "gold": 2}, "gold=2 must be the number of one of 2 choices"),
        ("multiple_choice", {**MC, "gold": -1}, "gold=-1 must be"),
        ("multiple_choice", {**MC, "gold": True}, "gold=True must be"),
        ("multiple_choice", {**MC, "gold": "1"}, "gold='1' must be"),
        ("multiple_choice", {**MC, "choices": []}, "must be the number of one of 0 choices"),
        ("multiple_choice", {**MC, "choices": "no"}, "choices must be a list of texts"),
        ("multiple_choice", {**MC, "choices": ["a", None]}, "choices must be a list of texts"),
        ("multiple_choice", {"choices": ["a"], "gold": 0}, "object with the text(s) query"),
        ("schema", {**SCHEMA, "context_options": None}, "context_options must be a list"),
        ("schema", {**SCHEMA, "gold": None}, "gold=None must be"),
        ("language_modeling", {"context": "x"}, "object with the text(s) context, continuation"),
        ("language_modeling", {**LM, "context": 5}, "object with the text(s) context"),
        ("language_modeling", {**LM, "continuation": " "}, "continuation is empty"),
        ("schema", {**SCHEMA, "continuation": ""}, "continuation is empty"),
        ("language_modeling", [1], "must be an object"),
        ("language_modeling", None, "must be an object"),
    ],
)
def test_rows_that_cannot_be_asked_are_refused_before_any_is(
    tmp_path, tokenizer, model, single, kind, row, said
):
    bundle = small_bundle(tmp_path / "bundle")
    path = bundle / "eval_data" / f"{kind}.jsonl"
    with open(path, "a") as file:
        file.write("\n" + json.dumps(row) + "\n")
    told = []
    with pytest.raises(ValueError, match=re.escape(f"{path}:42: ") + ".*" + re.escape(said)):
        tasks = core.read_bundle(bundle)
        evaluate_core(model, tokenizer, single, tasks, on_result=lambda *_: told.append(1))
    assert not told


@pytest.mark.parametrize(
    ("text", "said"), [(b"", "has no examples"), (b"\n \n", "has no examples")]
)
def test_a_file_without_examples_is_no_result(tmp_path, text, said):
    path = tmp_path / "t.jsonl"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=said):
        core.read_examples(task("schema", path=path))
    for broken in (b'{"continuation": "x"', b"\xff\n"):
        path.write_bytes(json.dumps(SCHEMA).encode() + b"\n" + broken)
        with pytest.raises(ValueError, match="t.jsonl:2: "):
            core.read_examples(task("schema", path=path))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("core.yaml", "", "core.yaml is damaged"),
        ("core.yaml", "icl_tasks: []", "core.yaml is damaged"),
        ("core.yaml", "icl_tasks: [{label: x}]", "each task needs label, dataset_uri"),
        ("core.yaml", "{[", "core.yaml is damaged"),
        ("eval_meta_data.csv", "", "my_schema: no baseline"),
        ("eval_meta_data.csv", "Eval Task,Random baseline\nmy_schema,lots\n", "my_schema: no base"),
        ("eval_meta_data.csv", "Eval Task,Random baseline\nmy_schema,100\n", "my_schema: no base"),
    ],
)
def test_damaged_bundles_are_one_line(tmp_path, name, text, said):
    bundle = small_bundle(tmp_path / "bundle")
    (bundle / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        core.read_bundle(bundle)


def test_equals_the_recorded_results(shared_dir, single):
    """All 22 tasks, every example."""
    folder = shared_dir / "fixtures" / "modern_d3"
    recorded = json.loads((shared_dir / "fixtures" / "core_modern_d3.json").read_text())
    state, _, meta = load_checkpoint(folder / "base_checkpoints" / "d3", 60, "cpu")
    model = build_model(state, meta).float().eval().requires_grad_(False)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    tasks = core.read_bundle(shared_dir / "data" / "core")
    found = evaluate_core(model, tokenizer, single, tasks, recorded["max_per_task"])
    assert len(found) == 22
    for label, expected in recorded["tasks"].items():
        assert found[label]["correct"] == expected["correct"], label
        assert found[label]["centered"] == pytest.approx(expected["centered"])
    assert centered_mean(found, found) == pytest.approx(recorded["core"])
