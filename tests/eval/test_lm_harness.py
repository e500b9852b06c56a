"""The lm-evaluation-harness adapter; with lm_eval installed, its ARC-Easy number against ours on
the same prompts.
"""

from __future__ import annotations

import json

import pytest
import torch

from nanochat.eval.choice import evaluate_choice
from nanochat.eval.lm_harness import Harness, as_lm
from nanochat.tasks.arc import ARC


@pytest.fixture
def harness(make_model, tokenizer, single):
    return Harness(make_model(context=64), tokenizer, single)


def token_nlls(model, ids):
    logits = model(torch.tensor([ids]))[0, :-1]
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(ids[1:]), reduction="none"
    ).tolist()


def test_loglikelihood(harness, tokenizer):
    pairs = [("The sky is", " blue"), ("The sky is ", "blue"), ("", "Hi"), ("The sky is", " red")]
    found = harness.loglikelihood(pairs)
    for (context, continuation), (value, _) in zip(pairs, found, strict=True):
        ids = [harness.bos, *tokenizer.encode(context + continuation)]
        n = len(tokenizer.encode(continuation)) + (1 if context.endswith(" ") else 0)
        assert value == pytest.approx(-sum(token_nlls(harness.model, ids)[-n:]), rel=1e-4)
    assert found[0] == pytest.approx(found[1])


def test_long_context_uses_all_of_the_window(harness, tokenizer):
    context, continuation = "x" * 100, "yz"
    ids = [harness.bos, *tokenizer.encode(context + continuation)][-65:]
    ((value, _),) = harness.loglikelihood([(context, continuation)])
    logits = harness.model(torch.tensor([ids[:-1]]))[0]
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    assert value == pytest.approx(-nll[-2:].sum().item(), rel=1e-4)


@pytest.mark.parametrize("length", [0, 1, 10, 64, 65, 200])
def test_rolling_windows_score_each_token_once_with_full_context(harness, length):
    tokens = list(range(1, length + 2))
    rows = harness.windows(tokens)
    assert [t for row in rows for t in row.tokens[row.start : row.end]] == tokens[1:]
    assert all(len(row.tokens) == min(65, len(tokens)) for row in rows[1:]) and all(
        row.start >= 1 for row in rows
    )


def test_rolling_sums_a_short_text(harness, tokenizer):
    ids = [harness.bos, *tokenizer.encode("some text")]
    assert harness.loglikelihood_rolling(["some text"])[0] == pytest.approx(
        -sum(token_nlls(harness.model, ids)), rel=1e-4
    )


def test_generation_is_greedy_and_stops(harness, tokenizer):
    (whole,) = harness.generate_until([("Once upon", {"max_gen_toks": 8, "until": []})])
    assert whole == harness.generate_until([("Once upon", {"max_gen_toks": 8, "until": []})])[0]
    if len(whole) > 2:
        stop = whole[2]
        assert harness.generate_until([("Once upon", {"until": [stop], "max_gen_toks": 8})]) == [
            whole[: whole.index(stop)]
        ]


def test_sampled_generation_is_the_same_on_any_number_of_ranks(harness, on_ranks, tokenizer):
    how = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 9, "until": ["", "\n\n"]}
    asked = [(f"context {i}", how) for i in range(5)]
    wanted = harness.generate_until(asked)
    assert len(set(wanted)) > 1
    found = on_ranks(
        3, lambda world: Harness(harness.model, tokenizer, world).generate_until(asked)
    )
    assert found == [wanted] * 3


def test_ranks_agree(harness, on_ranks, tokenizer):
    pairs = [(f"context {i % 3}", f" word {i}") for i in range(7)]
    wanted = harness.loglikelihood(pairs)
    for found in on_ranks(
        3, lambda world: Harness(harness.model, tokenizer, world).loglikelihood(pairs)
    ):
        assert [value for value, _ in found] == pytest.approx(
            [value for value, _ in wanted], rel=1e-5
        )


def test_chat_text_is_what_models_are_trained_on(harness, tokenizer):
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "ha"},
    ]
    text = harness.chat_text(history)
    conversation = {"messages": [*history, {"role": "assistant", "content": ""}]}
    assert harness.encode(text) == tokenizer.render_for_completion(conversation)


def test_without_lm_eval_one_line_says_what_to_install(harness, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ValueError, match="pip install lm_eval"):
        as_lm(harness)


def test_arc_easy_number_is_ours(base_dir, make_model, tokenizer, single, monkeypatch, tmp_path):
    lm_eval = pytest.importorskip(
        "lm_eval", reason="lm_eval is not installed: the parity of its numbers is not checked"
    )
    pytest.importorskip(
        "datasets", reason="datasets is not installed: lm_eval cannot read a local file"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    words = "iron wood snow rain salt gold milk sand".split()
    rows = [
        {
            "question": f"Which of these is number {i}?",
            "choices": {
                "text": [words[(i * k + k) % 8] + "s" * k for k in range(1, 5)],
                "label": list("ABCD"),
            },
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(40)
    ]
    path = base_dir / "task_data/arc/ARC-Easy/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, task = make_model(context=512), ARC("ARC-Easy", "test")
    ours = evaluate_choice(model, tokenizer, task, single, range(40))
    listed = "{% for l in choices.label %}- {{choices.text[loop.index0]}}={{l}}\n{% endfor %}"
    config = {
        "task": "arc_easy_local",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "Multiple Choice question: {{question}}\n"
        + listed
        + "\nRespond only with the letter of the correct answer.",
        "doc_to_choice": "{{choices.label}}",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    lm = as_lm(Harness(model, tokenizer, single))
    results = lm_eval.simple_evaluate(
        lm, tasks=[config], apply_chat_template=True, bootstrap_iters=0
    )
    assert results["results"]["arc_easy_local"]["acc,none"] == pytest.approx(sum(ours) / 40)
    by_doc = {s["doc_id"]: bool(s["acc"]) for s in results["samples"]["arc_easy_local"]}
    assert [by_doc[i] for i in range(40)] == ours and 0 < sum(ours) < 40
