"""Metrics: one line of JSON each, whatever they are."""

from __future__ import annotations

import json

import numpy as np
import torch

from nanochat.runtime.metric_log import MetricLog


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
    with MetricLog(None) as log:
        log.log(1, loss=1.0)
    assert list(tmp_path.iterdir()) == []
