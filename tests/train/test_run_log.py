"""What a run tells while it goes: its log, its step lines, its warnings."""

from __future__ import annotations

import json

import pytest
import torch
from test_trainer import batch, make, stage_config
from tiny_runs import base_config

from nanochat.cost import flops_per_token
from nanochat.runtime.metric_log import MetricLog
from nanochat.train import stages
from nanochat.train.hooks import LogHook


def rows(data, stage="base"):
    path = data / f"{stage}_checkpoints" / "t" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_learning_rates_are_the_real_ones(data, single):
    """`lr` of the matrices, that of the others by name, and the share of the full ones."""
    record = stages.base(base_config(sample_every=3, embedding_lr=0.4), single)
    optim = record["settings"]["optim"]
    logged = [row for row in rows(data) if "lr" in row]
    assert len(logged) == 6
    for row in logged:
        scale = optim["lr_scale"] * row["lr_frac"]
        assert row["lr"] == pytest.approx(0.02 * scale)
        assert row["lr_embedding"] == pytest.approx(0.4 * (32 / 768) ** -0.5 * scale)
    assert [row["lr_frac"] for row in logged][-1] < 0.5 < max(row["lr_frac"] for row in logged)
    samples = [row["samples"] for row in rows(data) if "samples" in row]
    assert len(samples) == 2 and set(samples[0][0]) == {"prompt", "completion"}


def test_mfu_is_logged_where_the_peak_is_known(single, tmp_path):
    for peak in (None, 1e9):
        trainer = make([[batch()]], single, n_steps=2)
        work = flops_per_token(trainer.model.config, 16)
        path = tmp_path / f"{peak}.jsonl"
        with MetricLog(path) as log:
            trainer.hooks = [LogHook(log, work, peak)]
            trainer.fit()
        for row in map(json.loads, path.read_text().splitlines()):
            assert ("mfu" in row) == (peak is not None)
            if peak:
                assert row["mfu"] == pytest.approx(row["tokens_per_s"] * work / peak, abs=1e-3)


def test_the_peak_is_that_of_all_devices(single, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from nanochat.runtime.world import World
    from nanochat.train.derive import pretraining

    settings = pretraining(base_config(), 265, "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    with MetricLog(None) as log:
        facts = SimpleNamespace(settings=settings)
        hook = stages.log_hook(log, facts, World(0, 0, 8, torch.device("cuda")))
        assert hook.peak_flops == pytest.approx(8 * 989e12)
        assert hook.token_flops == flops_per_token(settings.model_config, 32)
        assert stages.log_hook(log, facts, single).peak_flops is None


def test_step_lines_have_loss_rate_score_and_speed(data, single, capsys):
    stages.base(base_config(eval_every=3), single)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "base: 6/6" in line]
    words = [part.split()[0] for part in line.split(", ")[2:]]
    assert set(words) == {"loss", "lr", "val_bpb", "tok_s"}, line


def test_a_base_model_straight_into_fine_tuning_is_a_warning(data, single, capsys):
    """At the beginning and at the end; not from a midtrained model, not for midtraining."""
    stages.base(base_config(num_iterations=1), single)
    capsys.readouterr()
    stages.sft(stage_config("sft", data), single)
    said = capsys.readouterr().err
    assert said.count("WARNING: this base model has not had midtraining") == 2
    assert "scripts.mid_train" in said and "--source=mid" in said
    stages.mid(stage_config("mid", data), single)
    stages.sft(stage_config("sft", data, source="mid", tag_out="u"), single)
    assert "has not had" not in capsys.readouterr().err
