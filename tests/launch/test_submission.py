"""A recipe handed to SLURM step by step, against stand-ins for sbatch and squeue."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

import pytest

from nanochat.launch.cluster.settings import ClusterSettings
from nanochat.launch.cluster.submission import StepJob, parameters, submit_recipe
from nanochat.launch.ledger import Ledger
from nanochat.launch.local import recipe
from nanochat.launch.recipes import RecipeConfig, RecipeStep, build

pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
SBATCH = """#!/bin/sh
n=$(cat "$COUNT" 2>/dev/null || echo 100); n=$((n + 1)); echo $n >"$COUNT"
for file; do :; done
cp "$file" "$COUNT.$n"
[ -z "$REFUSED" ] || { echo "sbatch: error: $REFUSED" >&2; exit 1; }
echo "Submitted batch job $n"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The batch files that were submitted, by job number."""
    (tmp_path / "bin").mkdir()
    programs = {"sbatch": SBATCH, "srun": "#!/bin/sh\n", "squeue": '#!/bin/sh\necho "$QUEUED"\n'}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    return lambda job: (tmp_path / f"count.{job}").read_text()


def test_each_step_is_a_job_after_those_it_needs(slurm, base_dir, capsys, monkeypatch):
    assert recipe(RecipeConfig(action="run", name="cpu", on="slurm")) == 0
    said = capsys.readouterr().out
    for line in ("data: job 101", "tokenizer: job 102 after 101", "base: job 103 after 101, 102"):
        assert line in said
    assert "exam: job 106 after 105" in said and "report: job 107 after 106" in said
    base = slurm("103")
    assert "--dependency=afterok:101:102" in base and "--kill-on-invalid-dep=yes" in base
    assert "--requeue" in base and "--signal=USR2@180" in base and "--ntasks-per-node=1" in base
    monkeypatch.setenv("QUEUED", "PENDING")
    assert recipe(RecipeConfig(action="run", name="cpu", on="slurm")) == 0
    assert "base: job 103 is in the queue already" in capsys.readouterr().out


def test_a_complete_step_is_not_submitted(slurm, base_dir, capsys):
    chosen = build("cpu")
    ledger = Ledger(base_dir, "cpu")
    for step in chosen.steps[:2]:
        (base_dir / step.makes[0]).mkdir(parents=True)
        (base_dir / step.makes[0] / "x").touch()
        ledger.note(step, chosen.fingerprints()[step.name], "complete")
    submit_recipe(chosen, "dummy", ledger, list(chosen.steps[:3]))
    said = capsys.readouterr().out
    assert "data: complete, skipped" in said and "base: job 101\n" in said


def test_slurms_refusal_is_shown(slurm, base_dir, monkeypatch):
    monkeypatch.setenv("REFUSED", "Invalid account or account/partition combination specified")
    with pytest.raises(ValueError, match="(?s)SLURM refuses data: .*Invalid account or account"):
        recipe(RecipeConfig(action="run", name="cpu", on="slurm"))


def test_auto_is_no_recipe_for_other_machines(slurm):
    with pytest.raises(ValueError, match="name the recipe"):
        recipe(RecipeConfig(action="run", on="slurm"))


def test_what_a_job_asks_for():
    base = next(step for step in build("node8").steps if step.name == "base")
    settings = ClusterSettings(
        partition="gpu",
        account="me",
        time="2:00:00",
        nodes="2",
        gpus_per_node="4",
        email="me@example.org",
    )
    asked = parameters(base, settings, ["7"])
    assert (asked["partition"], asked["account"], asked["time"]) == ("gpu", "me", 120)
    assert (asked["nodes"], asked["ntasks_per_node"], asked["gpus_per_node"]) == (2, 4, 4)
    assert asked["mail_user"] == "me@example.org" and asked["dependency"] == "afterok:7"
    report = next(step for step in build("node8").steps if step.name == "report")
    alone = parameters(report, settings, [])
    assert (alone["nodes"], alone["ntasks_per_node"]) == (1, 1) and "gpus_per_node" not in alone


def job(base: Path, step: RecipeStep, **more) -> StepJob:
    return StepJob(recipe="r", step=step, fingerprint="f", run="dummy", base=base, **more)


def test_a_job_runs_its_step_and_notes_it(base_dir, tmp_path, monkeypatch, capfd):
    base_dir.mkdir()
    monkeypatch.chdir(tmp_path)
    step = RecipeStep("list", "recipe", {}, words=("list",))
    work = pickle.loads(pickle.dumps(job(base_dir, step)))
    assert work() == 0 and Ledger(base_dir, "r").read()["steps"]["r/list"]["state"] == "complete"
    broken = RecipeStep("broken", "recipe", {"no_such_flag": 1}, resumes=True)
    with pytest.raises(RuntimeError, match="broken ended with 2"):
        job(base_dir, broken)()
    assert "--resume" not in capfd.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(RuntimeError):
        job(base_dir, broken)()
    assert "--resume" in capfd.readouterr().err, "the recipe command has no such flag either"


def test_the_end_of_a_job_lets_the_step_save(base_dir, tmp_path, monkeypatch):
    """submitit's handler comes while the job waits for its step, as SLURM's signal does."""
    step = tmp_path / "step"
    step.write_text(
        "#!/bin/sh\ntrap 'touch saved; exit 75' USR1\ntouch ready\nwhile :; do sleep 0.05; done\n"
    )
    step.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(step))
    work = job(base_dir, RecipeStep("base", "base-train", {}))
    stopped = []

    def on_signal(number, frame):
        if not (tmp_path / "ready").exists():
            return signal.setitimer(signal.ITIMER_REAL, 0.2)
        stopped.append(work.checkpoint())
        raise SystemExit(-1)

    before = signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(SystemExit):
            work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "saved").exists() and stopped[0].function.child is None
