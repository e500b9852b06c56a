"""Sweeps: each run beside the others, complete ones skipped, stopped ones resumed, a table and a
picture of all.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.cli import run as cli_run
from nanochat.launch import local
from nanochat.launch import sweep as module
from nanochat.launch.sweep import SweepConfig, spans, sweep
from nanochat.launch.sweep_plan import SweepRun, read_sweep
from nanochat.launch.sweep_results import SweepResult, power_law, sweep_table, training_flops

ROOT = Path(__file__).resolve().parents[2]
# Stands in for a training: notes its words, leaves a record, or ends as $CODES says for its depth.
TRAINING = """
import json, os, sys
from pathlib import Path
base = Path(os.environ["NANOCHAT_BASE_DIR"])
words = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[2:])
with open(os.environ["CALLS"], "a") as file:
    told = [os.environ["WANDB_RUN_GROUP"], words["run"], str("resume" in words)]
    file.write(" ".join([sys.argv[1], words["depth"], words["matrix-lr"], *told]) + "\\n")
assert (base / "base_data" / "shard").read_text() == "text"
print("error: the loss was not finite")
code = int(json.loads(os.environ["CODES"]).get(words["depth"], 0))
if code:
    sys.exit(code)
lr, depth = float(words["matrix-lr"]), int(words["depth"])
metrics = {"val_bpb": 2 / depth + abs(lr - 0.02), "parameters": 10 ** depth, "tokens": 100}
(base / "report").mkdir(exist_ok=True)
record = {"metrics": metrics, "wall_s": 1.5, "config": {"depth": depth}}
(base / "report" / "base_train.json").write_text(json.dumps(record))
"""


@pytest.fixture
def place(base_dir, tmp_path, monkeypatch):
    (base_dir / "base_data").mkdir(parents=True)
    (base_dir / "base_data" / "shard").write_text("text")
    (base_dir / "base_checkpoints" / "d20").mkdir(parents=True)
    (base_dir / "report").mkdir()
    (base_dir / "report" / "base_train.json").write_text("people's own")
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    monkeypatch.setattr(module, "launcher", lambda processes: [sys.executable, str(script)])
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("CODES", "{}")
    file = tmp_path / "lr.yaml"
    file.write_text("grid: {matrix_lr: [0.01, 0.02], depth: [1, 2]}\n")
    return tmp_path


def calls(place) -> list[str]:
    path = place / "calls"
    told = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return told


def go(place, **more) -> int:
    return sweep(SweepConfig(file=str(place / "lr.yaml"), **more))


def test_all_runs_a_table_and_a_picture(place, base_dir, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_RUN", "study")
    assert go(place) == 0
    assert calls(place) == [
        f"base-train {d} {lr} lr study-matrix_lr={lr},depth={d} False"
        for lr in ("0.01", "0.02")
        for d in (1, 2)
    ]
    said = capsys.readouterr().out
    assert "best: matrix_lr=0.02,depth=2 with val_bpb 1" in said
    folder = base_dir / "sweeps" / "lr"
    rows = list(csv.DictReader(open(folder / "sweep.csv")))
    assert [float(row["val_bpb"]) for row in rows] == pytest.approx([2.01, 1.01, 2.0, 1.0])
    assert (folder / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "sweep.md").read_text()
    assert page.index("| 0.02 | 2 | 1 |") < page.index("| 0.01 | 1 | 2.01 |"), "the best first"
    assert (base_dir / "report" / "base_train.json").read_text() == "people's own"
    assert not (folder / "matrix_lr=0.01,depth=1" / "base_checkpoints").exists()


def test_only_what_is_missing_is_run(place, capsys):
    go(place)
    calls(place)
    (place / "lr.yaml").write_text("grid: {matrix_lr: [0.01, 0.02, 0.04], depth: [1, 2]}\n")
    assert go(place, only=5) == 0
    assert [call.split()[1:3] for call in calls(place)] == [["2", "0.04"]]
    assert go(place) == 0
    assert [call.split()[1:3] for call in calls(place)] == [["1", "0.04"]]
    assert go(place) == 0 and calls(place) == []
    capsys.readouterr()
    assert go(place, show=True) == 0
    assert capsys.readouterr().out.count("complete") == 6


def test_a_stopped_run_is_resumed(place, monkeypatch):
    monkeypatch.setenv("CODES", '{"2": 75}')
    assert go(place) == local.STOPPED
    assert [call.split()[1] for call in calls(place)] == ["1", "2"]
    monkeypatch.setenv("CODES", "{}")
    assert go(place) == 0
    resumed = [(call.split()[1], call.split()[-1]) for call in calls(place)]
    assert resumed == [("2", "True"), ("1", "False"), ("2", "False")]


def test_a_failed_run_does_not_end_the_others(place, monkeypatch, capsys):
    monkeypatch.setenv("CODES", '{"1": 2}')
    assert go(place) == 1 and len(calls(place)) == 4
    said = capsys.readouterr().out
    assert "exit code 2, error: the loss was not finite" in said
    assert [row[-6:] for row in said.splitlines()].count("failed") == 2
    monkeypatch.setenv("CODES", "{}")
    assert go(place) == 0
    assert [call.split()[1::4] for call in calls(place)] == [["1", "False"], ["1", "False"]]


def test_other_fixed_settings_are_another_sweep(place, base_dir, capsys):
    go(place)
    (place / "lr.yaml").write_text(
        "settings: {num_iterations: 5}\ngrid: {matrix_lr: [0.01, 0.02], depth: [1, 2]}\n"
    )
    calls(place)
    with pytest.raises(ValueError, match="4 of its runs .* other fixed settings"):
        go(place)
    assert go(place, name="other") == 0 and len(calls(place)) == 4
    assert go(place, replace=True) == 0 and len(calls(place)) == 4
    moved = list((base_dir / "previous").rglob("sweep_run.json"))
    assert len(moved) == 4 and "set aside" in capsys.readouterr().out


def test_a_record_that_is_gone_is_made_again(place, base_dir):
    go(place)
    calls(place)
    (base_dir / "sweeps/lr/matrix_lr=0.01,depth=1/report/base_train.json").unlink()
    assert go(place) == 0
    assert [call.split()[1:3] for call in calls(place)] == [["1", "0.01"]]


def test_a_run_may_start_from_a_model_of_its_own_stage(place, base_dir, tmp_path):
    (base_dir / "chatsft_checkpoints" / "d20").mkdir(parents=True)
    own = tmp_path / "own"
    module.link_base(base_dir, own, "sft", {"source": "sft"})
    assert (own / "chatsft_checkpoints" / "d20").is_symlink()
    assert not (own / "chatsft_checkpoints").is_symlink()
    assert (own / "base_checkpoints").is_symlink() and not (own / "report").exists()
    module.link_base(base_dir, own, "sft", {"source": "sft"})  # again, for a resume


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--only=4"], "has 4 runs, 0 to 3"),
        (["--only=-1"], "--only=-1: must be"),
        (["--on=slurm", "--show"], "--on=slurm: submits all runs"),
    ],
)
def test_flags(place, flags, told, capsys):
    try:
        cli_run(["sweep", str(place / "lr.yaml"), *flags])
    except (ValueError, SystemExit) as error:
        assert told in str(error) + capsys.readouterr().err
    else:
        raise AssertionError("was accepted")
    assert calls(place) == []


def test_an_array_of_jobs(place, base_dir, monkeypatch, capsys):
    """The script is bash, and each job runs one run of the copied file."""
    bin_dir = place / "bin"
    bin_dir.mkdir()
    for name, text in {
        "sbatch": 'echo "$@" > "$CALLS.sbatch"; echo Submitted batch job 7',
        "srun": 'shift; echo "srun $*" >> "$CALLS"; exit "$SRUN_CODE"',
        "scontrol": 'echo "scontrol $*" >> "$CALLS"',
    }.items():
        (bin_dir / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_dir / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CODES", '{"1": 2}')
    go(place)
    calls(place)
    with open(place / "lr.yaml", "a") as file:
        file.write("sbatch: [--partition=p, --gpus=1]\n")
    assert go(place, on="slurm") == 0
    words = (place / "calls.sbatch").read_text().split()
    script = base_dir / "sweeps" / "lr" / "sweep.slurm"
    assert words == ["--array=0,2", "--partition=p", "--gpus=1", str(script)]
    assert "Submitted batch job 7: 2 runs" in capsys.readouterr().out
    job = {**os.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "7"}
    for code, ends in (("0", 0), ("75", 0), ("1", 1)):
        done = subprocess.run(["bash", str(script)], env={**job, "SRUN_CODE": code})
        assert done.returncode == ends
    first, second, requeue, third = calls(place)
    assert first == second == third and "--only=2" in first and requeue == "scontrol requeue 7_2"
    copy = read_sweep(base_dir / "sweeps" / "lr" / "sweep.yaml", "lr")
    assert len(copy.runs) == 4 and f"{base_dir}/sweeps/lr/sweep.yaml --name=lr" in first


def test_slurm_says_why_not(place, monkeypatch):
    bin_dir = place / "bin"
    bin_dir.mkdir()
    (bin_dir / "sbatch").write_text("#!/bin/sh\necho 'invalid account' >&2\nexit 1\n")
    (bin_dir / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_dir))
    with pytest.raises(ValueError, match="invalid account"):
        go(place, on="slurm")
    monkeypatch.setenv("PATH", str(place / "empty"))
    with pytest.raises(ValueError, match="there is no sbatch"):
        go(place, on="slurm")


def test_spans():
    assert spans([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8" and spans([3]) == "3"


def test_a_power_law(tmp_path):
    found = [(x, 3 * x**-0.5) for x in (1.0, 10.0, 100.0)]
    assert power_law(found) == pytest.approx((3, -0.5))
    assert power_law(found[:2]) is None and power_law([*found, (5.0, 0.0)]) is None
    path = tmp_path / "s.yaml"
    path.write_text("x: parameters\ngrid: {depth: [1, 2, 3]}")
    plan = read_sweep(path)
    records = [{"metrics": {"parameters": x, "val_bpb": y}} for x, y in found]
    results = [
        SweepResult(run=run, state="complete", record=record)
        for run, record in zip(plan.runs, records, strict=True)
    ]
    assert "power law: val_bpb = 3 * parameters^-0.5000" in sweep_table(plan, results)


def test_flops_are_those_of_the_model():
    from nanochat.cost import flops_per_token
    from nanochat.gpt_config import GPTConfig

    config = GPTConfig(n_layer=2, n_head=2, n_kv_head=2, n_embd=64, vocab_size=300)
    record = {"settings": {"model_config": config.to_dict(), "seq_len": 32}}
    assert training_flops(record) is None
    record["metrics"] = {"tokens": 1000}
    assert training_flops(record) == 1000 * flops_per_token(config, 32)
    run = SweepRun(varied={}, settings={})
    assert SweepResult(run=run, state="complete", record=record).value("flops")


def test_a_real_sweep(base_dir, tmp_path):
    """Two runs of one step, through the command line."""
    sys.path.insert(0, str(ROOT / "tests" / "train"))
    from tiny_runs import base_config, make_base

    make_base(base_dir)
    changes = dict(num_iterations=1, model_tag=None, eval_every=-1, compile=False)
    wanted = {name: getattr(base_config(**changes), name) for name in base_config().__dict__}
    kept = {name: value for name, value in wanted.items() if value is not None and name != "run"}
    kept = {name: v for name, v in kept.items() if name not in ("resume", "replace", "depth")}
    file = tmp_path / "depth.yaml"
    file.write_text(json.dumps({"settings": kept, "grid": {"depth": [1, 2]}}))
    assert sweep(SweepConfig(file=str(file))) == 0
    rows = list(csv.DictReader(open(base_dir / "sweeps" / "depth" / "sweep.csv")))
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert float(rows[1]["flops"]) > float(rows[0]["flops"]) > 0
    assert (base_dir / "sweeps/depth/depth=2/base_checkpoints/d2/model_000001.pt").exists()
