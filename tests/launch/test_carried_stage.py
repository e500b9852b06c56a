"""A stage whose machine vanishes goes on from what was carried away."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from nanochat.launch import carried_stage as module
from nanochat.launch.carried_stage import CarriedStage, step_line

# Stands in for a training: checkpoints at steps 2 and 4 with rows of the log, then ends as told.
TRAINING = """
import json, os, sys, time
from pathlib import Path
folder = Path(os.environ["NANOCHAT_BASE_DIR"]) / "base_checkpoints" / "d2"
folder.mkdir(parents=True, exist_ok=True)
start = max([int(p.stem.split("_")[1]) for p in folder.glob("meta_*")], default=0)
for step in range(start + 1, 5):
    with open(folder / "metrics.jsonl", "a") as file:
        row = {"step": step, "train_loss": 4 / step, "lr": 0.02, "tokens_per_s": 100.4}
        file.write(json.dumps(row) + "\\n")
        if step % 2 == 0:
            file.write(json.dumps({"step": step, "val_bpb": 2 / step}) + "\\n")
    if step % 2 == 0:
        for old in folder.glob("m*_*"):
            old.unlink()  # --keep=1
        (folder / f"model_{step:06d}.pt").write_text("weights")
        files = {f"model_{step:06d}.pt": {"bytes": 7, "sha256": ""}}
        meta = {"step": step, "model_config": {"n_layer": 1}, "files": files}
        (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
        time.sleep(0.5)
    if step == int(os.environ.get("DIES_AT", 0)):
        os._exit(9)
"""


@pytest.fixture
def training(tmp_path, monkeypatch):
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    monkeypatch.setattr(module, "launcher", lambda processes: [sys.executable, str(script)])
    monkeypatch.setattr(module, "gpu_count", lambda: 0)
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    return tmp_path


class Safe:
    """Where a workflow engine keeps one checkpoint."""

    def __init__(self, place):
        self.place = place
        self.steps = []

    def __call__(self, folder, step):
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(folder, self.place)
        self.steps.append(step)


def test_killed_and_gone_on(training, capfd):
    safe = Safe(training / "safe")
    first = CarriedStage(training / "one", "base", "d2", "same")
    first.base.mkdir()
    assert first.restore(None) is None
    assert first.run(["base-train"], safe, {"DIES_AT": "3"}) == 9
    assert safe.steps == [2]
    shutil.rmtree(first.base)  # the machine is gone
    second = CarriedStage(training / "two", "base", "d2", "same")
    second.base.mkdir()
    assert second.restore(safe.place) == 2
    assert second.run(["base-train"], safe) == 0
    assert safe.steps == [2, 4]
    steps = [row["step"] for row in second.rows() if "train_loss" in row]
    assert steps[-2:] == [3, 4] and steps[:2] == [1, 2]
    said = capfd.readouterr().out.splitlines()
    assert "Step 2: loss=2.000, val_bpb=1.000, lr=0.02, tok/sec=100" in said
    assert said.count("Step 4: loss=1.000, val_bpb=0.500, lr=0.02, tok/sec=100") == 1


@pytest.mark.parametrize(
    "change", [{"identity": "other settings"}, {"stage": "mid"}, {"tag": "d4"}]
)
def test_what_was_carried_for_another_training_is_left(training, change):
    safe = Safe(training / "safe")
    whole = {"stage": "base", "tag": "d2", "identity": "same"}
    first = CarriedStage(training, **whole)
    assert first.run(["base-train"], safe) == 0 and safe.steps[-1] == 4
    other = CarriedStage(training / "other", **{**whole, **change})
    assert other.restore(safe.place) is None and not other.folder.exists()


def test_a_line_for_each_validation():
    rows = [json.loads('{"step": 100, "train_loss": 5.234, "lr": 0.02, "tokens_per_s": 1024.2}')]
    told = step_line([*rows, {"step": 100, "val_bpb": 2.145}])
    assert told == "Step 100: loss=5.234, val_bpb=2.145, lr=0.02, tok/sec=1024"
    assert step_line([{"step": 0, "val_bpb": 3.0}]) == "Step 0: val_bpb=3.000"
