"""The SLURM batch scripts against stand-ins for srun, scontrol and Python that write down how they
were called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("slurm_job.sh", "slurm_mid_sft.sh", "speedrun.slurm", "resume_mid_sft.slurm", "setup.sh")
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "alone $*" >>"$CALLS"
"""
SRUN = """#!/bin/sh
echo "srun $*" >>"$CALLS"
case "$*" in *"$FAILS_AT"*) exit "$CODE" ;; esac
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$CALLS"
[ "$1" = show ] && echo "JobId=7 $SHOWN"
exit 0
"""


@pytest.fixture
def job(tmp_path):
    """Runs a batch script as job 7 -> (exit code, calls, what it printed)."""
    checkout, base, bin_dir = tmp_path / "checkout", tmp_path / "base", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(ROOT / "scripts" / name, checkout / "scripts")
    bin_dir.mkdir()
    for name, text in (("python3", PYTHON), ("srun", SRUN), ("scontrol", SCONTROL)):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    brought = (
        "tokenizer/tokenizer.json base_data/shard_00000.parquet eval_bundle/core.yaml task_data/x"
    )
    for path in (*brought.split(), "base_checkpoints/d20/x"):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).touch()
    calls = tmp_path / "calls"

    def run(script, *words, fails_at="nothing", code=0, shown="", **env):
        calls.write_text("")
        settings = {
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "NANOCHAT_BASE_DIR": str(base),
            "NANOCHAT_SKIP_SETUP": "1",
            "SLURM_JOB_ID": "7",
            "SLURM_SUBMIT_DIR": str(checkout),
            "CALLS": str(calls),
            "FAILS_AT": fails_at,
            "CODE": str(code),
            "SHOWN": shown,
            **env,
        }
        copy = shutil.copy(ROOT / "scripts" / script, tmp_path)  # as sbatch does
        done = subprocess.run(
            ["bash", copy, *words], env=settings, capture_output=True, text=True, timeout=60
        )
        return done.returncode, calls.read_text().splitlines(), done.stdout + done.stderr

    run.base, run.checkout = base, checkout
    return run


def modules(calls: list[str]) -> list[str]:
    return [call.partition(" -m ")[2].split()[0] for call in calls if " -m " in call]


ALL = [
    "nanochat.report",
    *(
        f"scripts.{name}"
        for name in "base_train base_loss base_eval mid_train chat_eval chat_sft chat_eval".split()
    ),
    "nanochat.report",
]


def test_the_whole_pipeline(job):
    code, calls, said = job("speedrun.slurm", "--depth=12", WANDB_RUN="name")
    assert code == 0, said
    assert modules(calls) == ALL
    base = next(call for call in calls if "base_train" in call)
    assert (
        base.startswith("srun ")
        and "--depth=12" in base
        and "--model_tag=d12" in base
        and "--run=name" in base
    )
    assert "--resume" not in base
    assert next(call for call in calls if "report generate" in call).startswith("alone ")


def test_a_stopped_stage_goes_back_into_the_queue_and_resumes(job):
    code, calls, said = job("speedrun.slurm", fails_at="mid_train", code=75)
    assert code == 0 and calls[-1] == "scontrol requeue 7", said
    code, calls, said = job("speedrun.slurm")
    assert code == 0 and modules(calls) == ALL[4:], said
    assert "--resume" in calls[-5] and "mid_train" in calls[-5]
    assert all("--resume" not in call for call in calls if "chat_sft" in call)


def test_endless_restarts_end(job):
    code, calls, said = job(
        "speedrun.slurm", fails_at="base_train", code=76, SLURM_RESTART_COUNT="20"
    )
    assert code == 76 and "restarted 20 times" in said and "scontrol requeue 7" not in calls


def test_a_failed_stage_stops_the_job(job):
    code, calls, said = job("speedrun.slurm", fails_at="base_eval", code=2)
    assert code == 2 and "error: base_eval ended with 2" in said
    assert modules(calls) == ALL[:4]


def test_only_the_later_stages(job):
    code, calls, said = job("resume_mid_sft.slurm")
    assert code == 0 and modules(calls) == ALL[4:], said
    assert all("--model_tag=d20" in call for call in calls if call.startswith("srun"))
    code, _, said = job("resume_mid_sft.slurm", "d99")
    assert code == 2 and "base_checkpoints/d99" in said


def test_what_was_not_brought_along_is_told_at_once(job):
    (job.base / "tokenizer" / "tokenizer.json").unlink()
    code, calls, said = job("speedrun.slurm")
    assert code == 2 and "bash scripts/download_data.sh" in said and not modules(calls)
    code, _, said = job("speedrun.slurm", SLURM_JOB_ID="")
    assert code == 2 and "sbatch" in said
    code, _, said = job("speedrun.slurm", NANOCHAT_SKIP_SETUP="")
    assert code == 2 and "setup_environment.sh" in said


def test_whom_to_write_to(job):
    def told(**settings):
        return [
            call
            for call in job("speedrun.slurm", **settings)[1]
            if call.startswith("scontrol update")
        ]

    assert told() == []
    assert "MailUser=me@example.org" in told(EMAIL="me@example.org")[0]
    (job.checkout / ".env.local").write_text('key=1\nemail="you@example.org"\n')
    assert "MailUser=you@example.org" in told(EMAIL="me@example.org")[0]
    assert told(shown="MailUser=they@example.org MailType=END") == []
