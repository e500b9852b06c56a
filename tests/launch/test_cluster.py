"""Settings of a cluster, what `cluster init` makes of what SLURM says, and where jobs are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nanochat.launch.cluster import cluster as commands
from nanochat.launch.cluster.cluster import ClusterConfig, cluster, init
from nanochat.launch.cluster.job_status import job_progress
from nanochat.launch.cluster.proposals import read_partitions
from nanochat.launch.cluster.settings import (
    NAMES,
    ClusterSettings,
    read_settings,
    sbatch_options,
    seconds,
)

ROOT = Path(__file__).resolve().parents[2]
SINFO = """cat <<'E'
cpu*|up|2-00:00:00|90|64|256000|(null)|(null)
gpu|up|1:00:00|4|96|1000000+|gpu:a100:8(S:0-1)|a100,nvlink
old|down|infinite|4|96|1000000|gpu:v100:16|v100
mixed|up|infinite|2|32+|128000|gpu:2,gpu:l4:1|(null)
E"""
TESTED = "echo sbatch: Job 9 to start at noon >&2"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts programs first on PATH."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in ("SCRATCH", "WORK", "PROJECT", "LOADEDMODULES", "EMAIL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)

    def write(name: str, text: str) -> None:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    write("git", "echo me@example.org")
    return write


def test_partitions():
    text = SINFO.split("\n", 1)[1].removesuffix("\nE")
    cpu, gpu, mixed = read_partitions(text)
    assert (cpu.default, cpu.gpus, cpu.features) == (True, 0, "")
    assert (gpu.name, gpu.gpus, gpu.gpu_type, gpu.memory_mb) == ("gpu", 8, "a100", 1_000_000)
    assert (mixed.gpus, mixed.cpus) == (3, 32)
    assert str(gpu) == "gpu: 4 node(s) of 96 cores, 977 GiB, 8 a100, at most 1:00:00"


def test_init_proposes_and_writes_a_file_that_works(program, tmp_path, monkeypatch):
    program("sinfo", SINFO)
    program("sacctmgr", "echo 'physics|normal,long'")
    program("sbatch", TESTED)
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.setenv("LOADEDMODULES", "gcc/13:cuda/12.8")
    said = init(yes=True, root=tmp_path)
    assert "SLURM would take a job with it: sbatch: Job 9" in said
    made = read_settings(tmp_path, {})
    assert made == ClusterSettings(
        partition="gpu",
        account="physics",
        time="1:00:00",
        nodes="1",
        modules="gcc/13 cuda/12.8",
        base_dir=f"{tmp_path}/nanochat",
        email="me@example.org",
        wandb_mode="offline",
        device_type="cuda",
    )
    assert sbatch_options(made)[:4] == [
        "--partition=gpu",
        "--account=physics",
        "--time=1:00:00",
        "--nodes=1",
    ]


def test_init_asks_and_asks_again_for_what_cannot_be(program, tmp_path, capsys):
    program("sinfo", SINFO)
    program("sacctmgr", "exit 1")
    program("sbatch", TESTED)
    answers = {"partition": ["gpus", "cpu"], "time": ["soon", "30"], "email": ["-"], "nodes": ["2"]}

    def ask(question: str) -> str:
        name = question.splitlines()[-1].split()[0]
        return answers.get(name, [""]).pop(0) if answers.get(name) else ""

    init(yes=False, root=tmp_path, ask=ask)
    said = capsys.readouterr().out
    assert "partition=gpus: there is none; one of cpu, gpu, mixed" in said
    assert "time=soon: is no time limit" in said
    made = read_settings(tmp_path, {})
    assert (made.partition, made.time, made.nodes, made.email) == ("cpu", "30", "2", "")
    init(yes=True, root=tmp_path)
    assert read_settings(tmp_path, {}).partition == "cpu", "what was chosen is proposed again"


def test_a_wrong_account_is_told_in_slurms_own_words(program, tmp_path):
    program("sinfo", SINFO)
    refused = "sbatch: error: Batch job submission failed: Invalid account specified"
    program("sbatch", f"echo '{refused}' >&2; exit 1")
    (tmp_path / "cluster.env").write_text("account=someone\n")
    said = init(yes=True, root=tmp_path)
    assert f"warning: SLURM refuses a job with it: {refused}" in said
    assert read_settings(tmp_path, {}).account == "someone"


def test_no_slurm_here(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ValueError, match="cluster init: `sinfo` is not here.*env.local.example"):
        cluster(ClusterConfig(action="init"))
    with pytest.raises(ValueError, match="cluster status: `squeue` is not here"):
        cluster(ClusterConfig())


def test_a_persons_own_file_wins_and_the_environment_over_both(tmp_path):
    (tmp_path / "cluster.env").write_text(
        "# ours\npartition=gpu\nbase_dir = /scratch/all # big\nexport time='2-12'\n"
    )
    (tmp_path / ".env.local").write_text('partition="mine"\nWANDB_API_KEY=x\nkey=1\n')
    found = read_settings(tmp_path, {"NANOCHAT_BASE_DIR": "/here"})
    assert (found.partition, found.base_dir, found.time) == ("mine", "/here", "2-12")


def test_folders_may_name_variables(tmp_path):
    (tmp_path / "cluster.env").write_text("base_dir=$SCRATCH/${USER}/nanochat\nvenv=~/venv\n")
    env = {"SCRATCH": "/scratch", "USER": "me", "HOME": "/home/me"}
    found = read_settings(tmp_path, env)
    assert (found.base_dir, found.venv) == ("/scratch/me/nanochat", "/home/me/venv")


@pytest.mark.parametrize(
    "text, limit_s",
    [("90", 5400), ("1:30", 90), ("12:00:00", 43200), ("2-12", 216_000), ("1-00:30", 88_200)],
)
def test_time_limits(text, limit_s):
    assert seconds(text) == limit_s


def test_what_is_no_time_limit():
    assert seconds("UNLIMITED") is None and seconds("") is None and seconds("soon") is None


def test_a_part_of_a_node_may_be_shared():
    options = sbatch_options(ClusterSettings(gpus_per_node="2", cpus_per_gpu="8"))
    assert options == [
        "--oversubscribe",
        "--gpus-per-node=2",
        "--ntasks-per-node=2",
        "--cpus-per-task=8",
    ]


def test_the_example_has_every_setting():
    text = (ROOT / ".env.local.example").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"\n{name}=" not in text and f"\n#{name}=" not in text] == []


def test_how_far_a_job_is(base_dir, program, capsys):
    folder = base_dir / "slurm" / "7"
    folder.mkdir(parents=True)
    assert str(job_progress(base_dir, "7")) == ""
    (folder / "running").write_text("sft d12\n")
    log = base_dir / "chatsft_checkpoints" / "d12" / "metrics.jsonl"
    log.parent.mkdir(parents=True)
    rows = [{"step": 40, "train_loss": 3.25}, {"step": 40, "val_bpb": 1.0}]
    log.write_text("\n".join([*map(json.dumps, rows), '{"step": 41, "tra']))
    assert cluster(ClusterConfig(job="7", line=True)) == "sft d12 step 40 loss 3.2500"
    (folder / "running").write_text("sft_eval d12\n")
    assert str(job_progress(base_dir, "7")) == "sft_eval d12"
    (folder / "running").write_text("sft d12\n")
    program("squeue", "echo '7|7|nanochat|RUNNING|1:00:00|n1|None'; echo '8|8|x|PENDING|9|||'")
    program("scontrol", "echo '   Requeue=1 Restarts=2 BatchFlag=1'")
    head, first, second = cluster(ClusterConfig()).splitlines()
    assert head.split()[0] == "job" and "next requeue" in head
    assert first.startswith("7 nanochat (restart 2)  running  sft d12  40    3.2500  1:00:00")
    assert "in 57:00" in first and first.endswith("n1") and "pending" in second


def test_options_are_printed_alone(monkeypatch):
    monkeypatch.setattr(commands, "read_settings", lambda: ClusterSettings(partition="gpu"))
    assert cluster(ClusterConfig(action="options")) == "--partition=gpu"
