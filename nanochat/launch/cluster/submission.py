"""`nanochat recipe run NAME --on slurm`: each step of a recipe as a job of its own, in their order,
through submitit.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.launch.cluster.proposals import read_offer
from nanochat.launch.cluster.settings import ClusterSettings, read_settings, seconds
from nanochat.launch.ledger import Ledger
from nanochat.launch.recipes import Recipe, RecipeStep
from nanochat.runtime.programs import output_of
from nanochat.runtime.records import report_dir

SIGNAL_S = 180  # before the time limit a training saves
MOST_TIMEOUTS = 20
DEFAULT_TIME = "12:00:00"
# submitit's own signal is for submitit: a training would die of it without saving.
QUIET = ("sh", "-c", "trap '' USR2; exec \"$@\"", "sh")


@dataclass(kw_only=True)
class StepJob:
    """What a job runs: one rank of a step, in a process of its own. submitit pickles it, and calls
    `checkpoint` when SLURM announces the end of the job.
    """

    recipe: str
    step: RecipeStep
    fingerprint: str
    run: str
    base: Path
    resume: bool = False  # an earlier job has begun it
    child: Any = field(default=None, repr=False)

    def __call__(self) -> int:
        """0; raises RuntimeError with the exit code of a step that failed."""
        words = [self.step.command, *self.step.argv(self.run)]
        again = self.resume or int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if self.step.resumes and again:
            words.append("--resume")
        os.environ["NANOCHAT_BASE_DIR"] = str(self.base)
        self.child = subprocess.Popen([*QUIET, sys.executable, "-m", "nanochat", *words])
        code = self.child.wait()
        self.child = None
        if code:
            raise RuntimeError(f"{self.step.name} ended with {code}; its log says why")
        if os.environ.get("SLURM_PROCID", "0") == "0":
            Ledger(self.base, self.recipe).note(self.step, self.fingerprint, "complete")
        return 0

    def checkpoint(self) -> Any:
        """Let the step save and stop, and say what the job runs when it starts again."""
        from submitit.helpers import DelayedSubmission

        if self.child is not None:
            # This is called in the middle of the wait above, which holds the lock of Popen's own.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.child.pid, signal.SIGUSR1)
                os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
            self.child = None
        return DelayedSubmission(self)


def submit_recipe(recipe: Recipe, run: str, ledger: Ledger, steps: list[RecipeStep]) -> int:
    """Hand the steps that are not complete to SLURM, each after those it needs. Returns 0.

    Raises ValueError where submitit or SLURM is not there, or where SLURM refuses.
    """
    settings = read_settings()
    executor = _executor(ledger.base / "slurm" / "recipe")
    prints = recipe.fingerprints()
    jobs: dict[str, str] = {}
    for step in steps:
        known = ledger.read()["steps"].get(ledger.key(step), {})
        if ledger.complete(step, prints[step.name]) and not step.always:
            print(f"{step.name}: complete, skipped")
            continue
        if known.get("fingerprint") == prints[step.name] and is_queued(known.get("job")):
            jobs[step.name] = known["job"]
            print(f"{step.name}: job {known['job']} is in the queue already")
            continue
        after = [jobs[name] for name in step.needs if name in jobs]
        executor.parameters.clear()
        executor.update_parameters(**parameters(step, settings, after))
        work = StepJob(
            recipe=recipe.name,
            step=step,
            fingerprint=prints[step.name],
            run=run,
            base=ledger.base,
            resume=ledger.unfinished(step, prints[step.name]),
        )
        jobs[step.name] = _submit(executor, work)
        ledger.note(step, prints[step.name], "started", job=jobs[step.name])
        then = f" after {', '.join(after)}" if after else ""
        print(f"{step.name}: job {jobs[step.name]}{then}", flush=True)
    print(f"logs: {executor.folder}; the report will be {report_dir() / 'report.md'}")
    return 0


def is_queued(job: str | None) -> bool:
    """Whether a job waits or runs."""
    return bool(job and (output_of("squeue", "-h", "-j", job, "-o", "%T") or "").strip())


def _executor(folder: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise ValueError(
            "--on=slurm: submitit is not installed; `pip install -e '.[cluster]'` brings it, or "
            "use scripts/speedrun.slurm"
        ) from None
    try:
        return submitit.SlurmExecutor(folder, max_num_timeout=MOST_TIMEOUTS)
    except RuntimeError:
        raise ValueError("--on=slurm: there is no SLURM (srun) on this machine") from None


def _submit(executor: Any, work: StepJob) -> str:
    """The job's number. Raises ValueError with what SLURM says."""
    from submitit.core.utils import FailedJobError

    try:
        return str(executor.submit(work).job_id)
    except FailedJobError as error:
        raise ValueError(f"--on=slurm: SLURM refuses {work.step.name}: {error}") from None


def parameters(step: RecipeStep, settings: ClusterSettings, after: list[str]) -> dict[str, Any]:
    """submitit's parameters of a step's job: cluster.env's, one task for each GPU of steps that run
    on all of them.
    """
    chosen = ("partition", "account", "qos", "constraint")
    found: dict[str, Any] = {n: getattr(settings, n) for n in chosen if getattr(settings, n)}
    on_cpu = "cpu" in (settings.device_type, step.settings.get("device_type"))
    gpus = 0 if on_cpu or not step.every_gpu else gpus_of_node(settings)
    extra: dict[str, Any] = {"requeue": True}
    if settings.email:
        found |= {"mail_user": settings.email, "mail_type": "BEGIN,END,FAIL,REQUEUE"}
    if after:
        found["dependency"] = f"afterok:{':'.join(after)}"
        extra["kill-on-invalid-dep"] = "yes"
    if gpus:
        found |= {"gpus_per_node": gpus, "cpus_per_task": int(settings.cpus_per_gpu or 8)}
    limit_s = seconds(settings.time or DEFAULT_TIME)
    assert limit_s is not None, "checked when it was read"
    return found | {
        "job_name": f"nanochat-{step.name}",
        "time": max(1, limit_s // 60),
        "nodes": int(settings.nodes or 1) if step.every_gpu else 1,
        "ntasks_per_node": max(1, gpus),
        "signal_delay_s": SIGNAL_S,
        "additional_parameters": extra,
    }


def gpus_of_node(settings: ClusterSettings) -> int:
    """As many as cluster.env says, else as a node of the partition has."""
    if settings.gpus_per_node:
        return int(settings.gpus_per_node)
    partitions = read_offer(getpass.getuser()).partitions
    found = [p.gpus for p in partitions if p.name == settings.partition or not settings.partition]
    return max(found, default=0)
