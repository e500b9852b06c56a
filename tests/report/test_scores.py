"""Scores in every shape that evaluations write, their intervals, and what a run cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.report.machine_hours import gpu_rate, stage_cost, wall_seconds
from nanochat.report.scores import exam_parts, scores, summary, wilson


def test_wilson_interval_has_its_published_values():
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(190, 200) == pytest.approx((0.9104, 0.9726), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share(pair):
    correct, total = pair
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert wilson(total - correct, total) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    "record",
    [
        {"metrics": {"ARC-Easy": 0.5}},
        {"tasks": {"arc_easy": {"accuracy": 0.5, "correct": 50, "total": 100}}},
        {"results": [{"task": "ARC-Easy", "correct": [True, False], "n": 2}]},
        {"parts": {"arc-easy": {"score": 0.5, "interval": [0.4, 0.6]}}},
        {"scores": [{"name": "ARC-Easy", "passed": 3, "count": 6}]},
        {"metrics": {"ARC-Easy": {"value": 0.5, "low": 0.4, "high": 0.6}}},
    ],
)
def test_every_shape_is_read(record):
    assert scores(record)["arceasy"].value == 0.5


def test_a_detailed_entry_wins_over_a_bare_number():
    record = {
        "metrics": {"GSM8K": 0.25},
        "tasks": {"GSM8K": {"accuracy": 0.25, "correct": 50, "total": 200}},
    }
    for order in (record, dict(reversed(record.items()))):
        found = scores(order)["gsm8k"]
        assert (found.correct, found.total) == (50, 200)
        assert found.interval == "0.195 to 0.314"


def test_odd_entries_are_not_scores():
    assert (
        scores(
            {"metrics": {"a": True, "b": None, "c": "x", "d": {}, "e": {"correct": 1}}, "tasks": 3}
        )
        == {}
    )


def test_summary_keeps_the_few_shot_tasks_of_core_out_of_the_chat_rows():
    base = {
        "metrics": {"core_metric": 0.22},
        "tasks": {"arc_easy": {"accuracy": 0.6, "total": 100}},
    }
    table = summary(
        {"base_eval": base, "chat_eval_sft": {"metrics": {"ARC-Easy": 0.4, "ChatCORE": 0.1}}}
    )
    assert {metric: s.value for metric, s in table["BASE"].items()} == {"CORE": 0.22}
    assert {metric: s.value for metric, s in table["SFT"].items()} == {
        "ARC-Easy": 0.4,
        "ChatCORE": 0.1,
    }
    assert table["MID"] == table["RL"] == {}


def test_exam_parts_are_the_parts_not_the_clock():
    assert [s.name for s in exam_parts({"metrics": {"identity": 0.9, "wall_s": 30.0}})] == [
        "identity"
    ]
    both = {"parts": {"facts": {"correct": 9, "total": 10}}, "metrics": {"mean": 0.9}}
    assert [s.name for s in exam_parts(both)] == ["facts"]


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H200", 3.5),
        ("NVIDIA H20", 1.5),
        ("NVIDIA GH200 480GB", 1.5),
        ("NVIDIA H100 80GB HBM3", 3.0),
        ("NVIDIA A100-SXM4-80GB", 1.8),
        ("NVIDIA A100-PCIE-40GB", 1.3),
        ("NVIDIA A10G", 0.7),
        ("NVIDIA L40S", 1.0),
        ("NVIDIA L4", 0.7),
        ("Tesla T4", 0.4),
        ("NVIDIA RTX A4000", None),
        ("Unheard Of 9000", None),
    ],
)
def test_gpus_are_told_apart(name, rate):
    assert gpu_rate(name) == rate


def test_cost_is_hours_times_the_rate():
    gpus = {"gpus": ["NVIDIA H100 80GB HBM3"] * 8, "cpu": "x"}
    record = {"wall_s": 7200.0, "device": "cuda", "world_size": 8, "environment": gpus}
    assert stage_cost("base_train", record, None).usd == pytest.approx(48.0)
    assert stage_cost("base_train", record, 10.0).usd == pytest.approx(20.0)
    assert stage_cost("base_train", {**record, "world_size": 1}, None).usd == pytest.approx(6.0)
    assert stage_cost("base_train", {**record, "device": "cpu"}, None).usd == 0.0
    unknown = {**record, "environment": {"gpus": ["Unheard Of 9000"]}}
    assert stage_cost("base_train", unknown, None).usd is None
    assert stage_cost("base_train", {"metrics": {}}, None) is None


def test_time_is_found_where_it_is_said():
    assert wall_seconds({"wall_s": 3}) == 3.0
    assert wall_seconds({"started": 10.0, "finished": 12.5}) == 2.5
    assert wall_seconds({"metrics": {"wall_s": 4.0}}) == 4.0
    assert wall_seconds({"training": {"train_time_s": 8.1}}) == 8.1
    assert wall_seconds({"metrics": None, "started": None}) is None
