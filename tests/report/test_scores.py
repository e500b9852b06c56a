"""Scores as they stand in records, and what a run cost."""

from __future__ import annotations

import pytest

from nanochat.eval.results import scored
from nanochat.report.machine_hours import stage_cost
from nanochat.report.scores import mean_scores, shared_scores, summary_scores, task_scores
from nanochat.runtime.chips import gpu_rate

ENTRY = {**scored([1] * 50 + [0] * 150, 0.25), "correct": 50}


def test_a_task_keeps_what_its_evaluation_wrote():
    score = task_scores({"tasks": {"GSM8K": ENTRY}})["GSM8K"]
    assert (score.value, score.correct, score.total) == (0.25, 50, 200)
    assert (score.centered, score.baseline) == (0.0, 0.25) and score.interval == "0.195 to 0.314"


def test_odd_metrics_are_not_scores():
    odd = {"a": True, "b": None, "c": "x", "d": {}}
    assert mean_scores({"metrics": odd}) == {} and task_scores({"metrics": None}) == {}


def test_summary_keeps_the_few_shot_tasks_of_core_out_of_the_chat_rows():
    base = {"metrics": {"CORE": 0.22, "val_bpb": 1.0}, "tasks": {"arc_easy": ENTRY}}
    chat = {"metrics": {"ChatCORE": 0.1}, "tasks": {"ARC-Easy": ENTRY, "World-facts": ENTRY}}
    table = summary_scores({"base_eval": base, "chat_eval_sft": chat})
    assert {metric: s.value for metric, s in table["BASE"].items()} == {"CORE": 0.22}
    assert {m: s.value for m, s in table["SFT"].items()} == {"ARC-Easy": 0.25, "ChatCORE": 0.1}
    assert table["MID"] == table["RL"] == {}


def test_tasks_outside_the_table_are_shared_by_two_stages():
    both = {"tasks": {"ARC-Easy": ENTRY, "World-facts": ENTRY}}
    shared = shared_scores({"chat_eval_sft": both, "chat_eval_rl": both, "base_eval": both})
    assert {column: list(of) for column, of in shared.items() if of} == {
        "SFT": ["World-facts"],
        "RL": ["World-facts"],
    }
    assert not any(shared_scores({"chat_eval_sft": both}).values())


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


def test_the_plan_stands_beside_what_it_took(base_dir):
    """The same arithmetic as `nanochat plan`, over the hours that the record has."""
    from nanochat.report.cost_command import CostConfig, show_cost
    from nanochat.runtime.chips import find_chip
    from nanochat.runtime.records import write_record
    from nanochat.train.configs import BaseConfig
    from nanochat.train.derive import pretraining
    from nanochat.train.plan import price

    with pytest.raises(ValueError, match="no stage has left a record there yet"):
        show_cost(CostConfig())
    settings = pretraining(BaseConfig(depth=20), 65_536, "cuda")
    hours, _ = price(settings, settings.n_steps, find_chip("H100"), 8)
    told = {
        "model_config": settings.model_config.to_dict(),
        "seq_len": settings.seq_len,
        "total_batch_size": settings.total_batch_size,
        "n_steps": settings.n_steps,
    }
    record = {
        "wall_s": 4 * 3600.0,
        "device": "cuda:0",
        "world_size": 8,
        "environment": {"gpus": ["NVIDIA H100 80GB HBM3"] * 8},
        "settings": told,
    }
    found = stage_cost("base_train", record, None)
    assert found.planned_s == pytest.approx(hours * 3600)
    assert stage_cost("base_train", {**record, "device": "cpu"}, None).planned_s is None
    older = {**record, "settings": {**told, "total_batch_size": 0}}
    assert stage_cost("base_train", older, None).planned_s is None
    write_record("base_train", record)
    write_record("exam", {"wall_s": 60.0, "environment": {"cpu": "a CPU"}})
    rows = show_cost(CostConfig(hourly_rate=24.0)).splitlines()
    assert rows[0].split() == ["Stage", "Hardware", "Time", "Planned", "Cost"]
    assert "4 h 00 min" in rows[1] and rows[1].endswith("$96.00") and "$24" in rows[-1]
    assert rows[3].startswith("Together") and rows[3].endswith("$96.40")
