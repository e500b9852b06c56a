"""The SLURM batch scripts against stand-ins for srun, scontrol and Python that write down how they
were called.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BATCH = ("speedrun.slurm", "resume_mid_sft.slurm")
SCRIPTS = (*BATCH, "slurm_job.sh", "slurm_mid_sft.sh", "setup.sh", "settings.sh")
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
echo "alone $*" >>"$CALLS"
case "$*" in
*" doctor "*) exit "${DOCTOR:-0}" ;;
*" cluster options"*) echo "--partition=gpu --account=me" ;;
*" cluster status "*) echo "base d12 step 7 loss 3.2" ;;
esac
"""
SRUN = """#!/bin/sh
echo "srun $*" >>"$CALLS"
case "$*" in *"$FAILS_AT"*) exit "$CODE" ;; esac
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$CALLS"
[ "$1" = show ] && echo "JobId=7 $SHOWN" && echo "   Command=$SCRIPT --depth=3"
exit 0
"""
MAIL = """#!/bin/sh
echo "mail $*" >>"$CALLS"
"""
SBATCH = """#!/bin/sh
echo "sbatch $*" >>"$CALLS"
[ -z "$REFUSED" ] || { echo "sbatch: error: $REFUSED" >&2; exit 1; }
"""


@pytest.fixture
def job(tmp_path):
    """Runs a batch script as job 7 -> (exit code, calls, what it printed)."""
    checkout, base, bin_dir = tmp_path / "checkout", tmp_path / "base", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    for name in SCRIPTS:
        shutil.copy(ROOT / "scripts" / name, checkout / "scripts")
    bin_dir.mkdir()
    programs = {"python3": PYTHON, "srun": SRUN, "scontrol": SCONTROL}
    for name, text in {**programs, "mail": MAIL, "sbatch": SBATCH}.items():
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
            "SLURM_GPUS_ON_NODE": "8",
            "SLURM_CPUS_ON_NODE": "96",
            "SCRIPT": str(checkout / "scripts" / script),
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
        logs = sorted((checkout / "logs").glob("*_7.*"))
        said = "".join(log.read_text() for log in logs) + done.stdout + done.stderr
        for log in logs:
            log.unlink()
        run.logs = [log.name for log in logs]
        return done.returncode, calls.read_text().splitlines(), said

    run.base, run.checkout = base, checkout
    return run


def modules(calls: list[str]) -> list[str]:
    """What was run, but for what doctor and the queue's comment need."""
    found = [call.partition(" -m ")[2].split()[0] for call in calls if " -m " in call]
    return [name for name in found if name != "nanochat"]


def call_of(calls: list[str], module: str) -> str:
    return next(call for call in calls if module in call)


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
    base = call_of(calls, "base_train")
    assert base.startswith("srun ") and "--resume" not in base
    for word in ("--depth=12", "--model_tag=d12", "--run=name", "--device_type=cuda"):
        assert f" {word}" in base, base
    assert call_of(calls, "report generate").startswith("alone ")
    assert job.logs == ["nanochat_speedrun_7.err", "nanochat_speedrun_7.out"]
    doctor = call_of(calls, " doctor ")
    assert "--offline --recipe=node8 --override=base.depth=12" in doctor
    assert calls.index(doctor) < calls.index(base)
    assert "scontrol update JobId=7 Comment=base d12 step 7 loss 3.2" in calls


def test_a_process_for_each_gpu_with_its_share_of_the_cores(job):
    """srun since 22.05 does not take --cpus-per-task over from the job: one core for each rank."""
    calls = job("speedrun.slurm")[1]
    asked = "--ntasks-per-node=8 --ntasks=8 --cpus-per-task=12 --gres=gpu:8"
    assert f"srun {asked} " in call_of(calls, "base_train")
    two = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "3"}
    calls = job("speedrun.slurm", SLURM_JOB_ID="7", NANOCHAT_REPLACE="1", **two)[1]
    assert modules(calls) == [], "complete: job 7 has done it all"
    shutil.rmtree(job.base / "slurm")
    asked = "--ntasks-per-node=2 --ntasks=4 --cpus-per-task=3 --gres=gpu:2"
    assert f"srun {asked} " in call_of(job("speedrun.slurm", **two)[1], "base_train")
    shutil.rmtree(job.base / "slurm")
    calls = job("speedrun.slurm", SLURM_GPUS_ON_NODE="0", SLURM_JOB_NUM_NODES="2")[1]
    assert "--ntasks-per-node=1 --ntasks=2 --cpus-per-task=96 --kill" in call_of(calls, "base_tr")
    assert "--device_type" not in call_of(calls, "base_train")


def test_nothing_is_asked_for_that_a_partition_may_not_have():
    """8 GPUs and 64 cores made jobs wait for ever where nodes have less."""
    for name in BATCH:
        text = (ROOT / "scripts" / name).read_text(encoding="utf-8")
        asked = [row.split()[1] for row in text.splitlines() if row.startswith("#SBATCH ")]
        assert "--exclusive" in asked and "--mem=0" in asked
        assert not [word for word in asked if word.startswith(("--gpus", "--cpus", "--time="))]


def test_flags_for_every_stage(job):
    words = ("--matrix-lr=0.01", "mid.device_batch_size=4", "sft_eval.max_problems=3")
    calls = job("speedrun.slurm", "--depth=2", *words, "--device-type=cpu")[1]
    assert "--matrix-lr=0.01" in call_of(calls, "base_train")
    assert "--device_batch_size=4" in call_of(calls, "mid_train")
    assert "--device_batch_size" not in call_of(calls, "chat_sft")
    evaluations = [call for call in calls if "chat_eval" in call]
    assert ["--max_problems=3" in call for call in evaluations] == [False, True]
    assert all("--device-type=cpu" in call for call in calls if call.startswith("srun"))
    assert "--override=base.device_type=cpu" in call_of(calls, " doctor ")
    for wrong, says in {
        "sft_evil.x=1": "no stage sft_evil; there are: base",
        "deep": "write --flag=value for base_train",
        "--depth": "with an equals sign",
    }.items():
        code, calls, said = job("speedrun.slurm", wrong, SLURM_JOB_ID="7")
        assert code == 2 and says in said and not modules(calls)


def test_a_stopped_stage_goes_back_into_the_queue_and_resumes(job):
    code, calls, said = job("speedrun.slurm", fails_at="mid_train", code=75)
    assert code == 0 and calls[-1] == "scontrol requeue 7", said
    code, calls, said = job("speedrun.slurm")
    assert code == 0 and modules(calls) == ALL[4:], said
    assert "--resume" in call_of(calls, "mid_train")
    assert all("--resume" not in call for call in calls if "chat_sft" in call)


@pytest.mark.parametrize("code", [134, 137])
def test_a_killed_rank_is_no_end_unless_it_is_killed_again_and_again(job, code):
    """srun ends with the highest code of all ranks, so a lost rank's 76 does not show."""
    for time in range(3):
        done, calls, said = job("speedrun.slurm", fails_at="base_train", code=code)
        assert done == 0 and calls[-1] == "scontrol requeue 7", (time, said)
    done, calls, said = job("speedrun.slurm", fails_at="base_train", code=code)
    assert done == code and "4 times without a new checkpoint: it lost a process" in said
    place = job.base / "base_checkpoints" / "d20"
    (place / "meta_000100.json").touch()
    done, calls, said = job("speedrun.slurm", fails_at="base_train", code=code)
    assert done == 0 and calls[-1] == "scontrol requeue 7", "it has come further"


def test_an_evaluation_that_never_fits_into_the_time_limit_ends(job):
    for _ in range(3):
        done, calls, _ = job("speedrun.slurm", fails_at="base_eval", code=138)
        assert done == 0 and calls[-1] == "scontrol requeue 7"
    done, calls, said = job("speedrun.slurm", fails_at="base_eval", code=138)
    assert done == 138 and "it reached the time limit; ask for more with --time" in said


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
    assert job.logs[0] == "nanochat_resume_7.err"
    shutil.rmtree(job.base / "slurm")
    calls = job("resume_mid_sft.slurm", "d12-x", "mid.num_iterations=3")[1]
    assert "--override=base.model_tag=d12-x --only=mid" in call_of(calls, " doctor ")
    assert "--num_iterations=3" in call_of(calls, "mid_train")


def test_what_another_job_has_trained_is_not_trained_again(job):
    mid = job.base / "mid_checkpoints" / "d20"
    mid.mkdir(parents=True)
    (mid / "meta_000800.json").write_text('{"step": 800}')
    calls = job("resume_mid_sft.slurm")[1]
    assert "--resume" in call_of(calls, "mid_train"), "it was lost in the middle"
    (mid / "meta_000810.json").write_text('{"step": 810, "metrics": {"steps": 810}}')
    shutil.rmtree(job.base / "slurm")
    code, calls, said = job("resume_mid_sft.slurm")
    assert code == 0 and modules(calls) == ALL[5:] and "NANOCHAT_REPLACE=1" in said
    shutil.rmtree(job.base / "slurm")
    calls = job("resume_mid_sft.slurm", NANOCHAT_REPLACE="1")[1]
    assert "--replace" in call_of(calls, "mid_train")


def test_what_was_not_brought_along_is_told_at_once(job):
    code, calls, said = job("speedrun.slurm", DOCTOR="2")
    assert code == 2 and "nothing has been started" in said and not modules(calls)
    code, _, said = job("speedrun.slurm", NANOCHAT_SKIP_SETUP="")
    assert code == 2 and "setup_environment.sh" in said


def test_doctor_itself_stops_a_job_without_data(job):
    code, calls, said = job(
        "speedrun.slurm", NANOCHAT_SKIP_SETUP="1", NANOCHAT_PYTHON=sys.executable, PYTHONPATH=ROOT
    )
    assert code == 2 and not modules(calls)
    assert "bash scripts/download_data.sh" in said and "HumanEval test" in said


def test_submitted_from_anywhere(job, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (job.checkout / "scripts", elsewhere):
        code, _, said = job("speedrun.slurm", SLURM_SUBMIT_DIR=str(place))
        assert code == 0 and job.logs, said
    assert not (elsewhere / "logs").exists()


def test_started_with_bash_it_submits_itself_with_the_clusters_settings(job):
    code, calls, said = job("speedrun.slurm", "--depth=3", SLURM_JOB_ID="")
    assert code == 0, said
    asked = "sbatch --partition=gpu --account=me scripts/speedrun.slurm --depth=3"
    assert calls[-1] == asked
    refused = "invalid account or account/partition combination specified"
    code, _, said = job("speedrun.slurm", SLURM_JOB_ID="", REFUSED=refused)
    assert code == 2 and f"sbatch: error: {refused}" in said and "nanochat cluster init" in said


def test_settings_of_the_cluster(job):
    """One file has the folders, modules and device; the environment's variables win over it."""
    (job.checkout / "cluster.env").write_text(
        f"base_dir={job.base}/$WHO # on scratch\nmodules=cuda/12 gcc\nmodule_init=./init\n"
        "device_type='cpu'\npartition=gpu\n"
    )
    (job.checkout / "init").write_text('module() { echo "module $*" >>"$CALLS"; }\n')
    settings = {"NANOCHAT_BASE_DIR": "", "WHO": "me", "SLURM_JOB_PARTITION": "cpu"}
    code, calls, said = job("speedrun.slurm", **settings)
    assert code == 0 and "module load cuda/12 gcc" in calls, said
    assert (job.base / "me" / "slurm" / "7" / "report").exists()
    assert "--device_type=cpu" in call_of(calls, "base_train")
    assert "warning: this job is in partition cpu, and cluster.env says gpu" in said
    (job.checkout / ".env.local").write_text("module_init=\nmodules=none\n")
    (job.checkout / "cluster.env").write_text("")
    code, calls, said = job("speedrun.slurm")
    assert code == 2 and "error: no command `module` on" in said and "module_init=" in said


def test_whom_to_write_to(job):
    def told(**settings):
        calls = job("speedrun.slurm", **settings)[1]
        words = ("scontrol update JobId=7 Mail", "mail ")
        return [call for call in calls if call.startswith(words)]

    assert told() == []
    asked, begun = told(EMAIL="me@example.org")
    assert "MailUser=me@example.org MailType=BEGIN,END,FAIL,REQUEUE" in asked
    assert begun.startswith("mail -s SLURM Job_id=7 ") and begun.endswith("Began me@example.org")
    again = told(EMAIL="me@example.org", SLURM_RESTART_COUNT="1")
    assert len(again) == 1, "SLURM itself tells of later beginnings"
    (job.checkout / ".env.local").write_text('key=1\nemail="you@example.org"\n')
    assert "MailUser=you@example.org" in told(EMAIL="me@example.org")[0]
    assert told(shown="MailUser=they@example.org MailType=END") == []
