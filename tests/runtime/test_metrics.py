"""Metrics: JSONL always, W&B only on request and never in the way."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
import torch

from nanochat.config import collect
from nanochat.launch.recipes import RecipeConfig
from nanochat.runtime.metric_log import MetricLog
from nanochat.train.configs import BaseConfig, MidConfig, SFTConfig
from nanochat.train.rl_configs import RLConfig


def test_jsonl_lines_and_odd_values(tmp_path):
    with MetricLog(tmp_path / "run" / "metrics.jsonl") as log:
        log.log(1, loss=torch.tensor(2.5), lr=np.float32(0.5), bad=float("nan"), text="é")
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["step"] == 1 and record["loss"] == 2.5 and record["lr"] == 0.5
    assert record["bad"] is None and record["text"] == "é" and record["time"] > 0


def test_resume_after_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "lo')
    with MetricLog(path) as log:
        log.log(1, loss=2)
        log.log(2, loss=1)
    lines = path.read_text().splitlines()
    assert lines[1] == '{"step": 2, "lo'
    assert [(r["step"], r["loss"]) for r in map(json.loads, lines[2:])] == [(1, 2), (2, 1)]


def test_no_path_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MetricLog(None, run="named") as log:
        log.log(1, loss=1.0)
    assert list(tmp_path.iterdir()) == []


def fake_wandb(monkeypatch, calls, fail=False):
    def log(values, step):
        if fail:
            raise OSError("no network")
        calls.append((step, values))

    run = types.SimpleNamespace(log=log, finish=lambda: calls.append("finish"))
    module = types.SimpleNamespace(
        init=lambda **kw: calls.append(kw["name"]) or run,
        Table=lambda columns, data: ("table", columns, data),
    )
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_wandb_gets_a_copy_only_when_named(tmp_path, monkeypatch):
    calls: list = []
    fake_wandb(monkeypatch, calls)
    for run in ("dummy", "", "mine"):
        with MetricLog(tmp_path / "m.jsonl", run=run) as log:
            log.log(3, loss=1.0)
    assert calls == ["mine", (3, {"loss": 1.0}), "finish"]


@pytest.mark.parametrize("value, name", [("mine", "mine"), (" ", "dummy"), ("", "dummy")])
def test_every_stage_takes_its_run_name_from_the_environment(monkeypatch, value, name):
    """As recipes and batch jobs do: WANDB_RUN=mine python -m scripts.base_train"""
    monkeypatch.setenv("WANDB_RUN", value)
    for cls in (BaseConfig, MidConfig, SFTConfig, RLConfig, RecipeConfig):
        assert collect(cls, [])[0].run == name
        assert collect(cls, ["--run=other"])[0].run == "other"


def test_wandb_failing_or_absent_never_stops_a_run(tmp_path, monkeypatch, capsys):
    fake_wandb(monkeypatch, [], fail=True)
    with MetricLog(tmp_path / "m.jsonl", run="mine") as log:
        log.log(1, loss=1.0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with MetricLog(tmp_path / "m.jsonl", run="mine") as log:
        log.log(2, loss=1.0)
    said = capsys.readouterr().err
    assert "no network" in said and "wandb is not installed" in said
    assert [
        json.loads(line)["step"] for line in (tmp_path / "m.jsonl").read_text().splitlines()
    ] == [1, 2]


def test_samples_are_a_table_in_wandb(tmp_path, monkeypatch):
    calls: list = []
    fake_wandb(monkeypatch, calls)
    samples = [{"prompt": "Hi", "completion": "Ho"}, {"prompt": "A", "completion": "B"}]
    with MetricLog(tmp_path / "m.jsonl", run="mine") as log:
        log.log(4, samples=samples, loss=1.0, none=[])
    table = ("table", ["prompt", "completion"], [["Hi", "Ho"], ["A", "B"]])
    assert calls[1] == (4, {"samples": table, "loss": 1.0, "none": []})
    assert json.loads((tmp_path / "m.jsonl").read_text())["samples"] == samples
