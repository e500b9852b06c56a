"""`nanochat sweep FILE.yaml`: one command over many settings, here or as a SLURM array, with a
table and a picture at the end.

Every run has a base directory of its own, `<base>/sweeps/<name>/<run>`, in which data, tokenizer
and the models to start from are links: its checkpoints never stand beside those that people use.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nanochat.config import Positional
from nanochat.launch.cluster.settings import read_settings, sbatch_options
from nanochat.launch.local import STOPPED, gpu_count, launcher, run_child
from nanochat.launch.sweep_plan import SweepPlan, SweepRun, read_sweep
from nanochat.launch.sweep_results import SweepResult, sweep_table, write_results
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.files import atomic_write
from nanochat.runtime.previous import set_aside
from nanochat.runtime.progress import clock
from nanochat.runtime.trackers import run_name

OWN_FOLDERS = ("report", "sweeps", "previous", "slurm", "smoke", "recipes.json")  # are no links
STATE = "sweep_run.json"


@dataclass
class SweepConfig:
    """Train once for every combination of settings in a file, or for a number of random draws."""

    file: Positional[str]
    """YAML file: command, settings, grid or random (docs/how-to/sweep.md)."""
    on: Literal["local", "slurm"] = "local"
    """local: one run after another on this machine; slurm: an array of jobs."""
    only: int | None = None
    """Only the run of this number, from 0 on, as the jobs of an array do."""
    show: bool = False
    """Only show the table of what there is."""
    replace: bool = False
    """Move runs that had other fixed settings into a dated folder, and begin them anew."""
    name: str | None = None
    """Name of the sweep; by default the file's."""

    def problems(self) -> list[str]:
        found = []
        if self.only is not None and self.only < 0:
            found.append(f"--only={self.only}: must be the number of a run, from 0 on")
        if self.on == "slurm" and (self.only is not None or self.show):
            found.append("--on=slurm: submits all runs; leave out --only and --show")
        return found


def sweep(cfg: SweepConfig) -> int:
    """Run, submit or show a sweep. Returns an exit code: 1 where a run failed, 75 where one was
    stopped.
    """
    file = Path(cfg.file)
    plan = read_sweep(file, cfg.name)
    if cfg.only is not None and cfg.only >= len(plan.runs):
        raise ValueError(
            f"--only={cfg.only}: the sweep has {len(plan.runs)} runs, 0 to {len(plan.runs) - 1}"
        )
    runner = SweepRunner(plan, base_dir())
    if cfg.show:
        print(sweep_table(plan, runner.results()))
        return 0
    runner.prepare(cfg.replace)
    if cfg.on == "slurm":
        return runner.submit(file)
    return runner.run(range(len(plan.runs)) if cfg.only is None else [cfg.only])


class SweepRunner:
    """The runs of one sweep under a base directory."""

    def __init__(self, plan: SweepPlan, base: Path) -> None:
        self.plan = plan
        self.base = base
        self.folder = base / "sweeps" / plan.name

    def place(self, run: SweepRun) -> Path:
        return self.folder / run.name

    def state(self, run: SweepRun) -> dict[str, Any]:
        """What is known of a run: `settings`, `state` (started | complete | failed), `seconds`."""
        try:
            return dict(json.loads((self.place(run) / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def note(self, run: SweepRun, state: str, **more: Any) -> None:
        known = {"command": self.plan.command, "settings": run.settings, "state": state, **more}
        atomic_write(self.place(run) / STATE, json.dumps(known, indent=2, default=str) + "\n")

    def results(self) -> list[SweepResult]:
        """What each run has come to, in the order of the plan."""
        return [self.result(run) for run in self.plan.runs]

    def result(self, run: SweepRun) -> SweepResult:
        known, record = self.state(run), {}
        if known.get("state") == "complete":
            path = self.place(run) / "report" / f"{self.plan.swept.section}.json"
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known["state"] = "started"  # what it left is gone
        return SweepResult(run=run, state=str(known.get("state", "not run")), record=record)

    def prepare(self, replace: bool) -> None:
        """See that what is there was made with the settings of today. Raises ValueError, or moves
        what is different with `replace`.
        """
        changed = []
        for run in self.plan.runs:
            known = self.state(run)
            told = json.loads(json.dumps([self.plan.command, run.settings], default=str))
            if known and [known.get("command"), known.get("settings")] != told:
                changed.append(run)
        if changed and not replace:
            names = ", ".join(run.name for run in changed[:3]) + ", ..." * (len(changed) > 3)
            raise ValueError(
                f"sweep {self.plan.name}: {len(changed)} of its runs ({names}) were made with "
                "other fixed settings; give the sweep another name with --name, or add --replace "
                "to move them into a dated folder"
            )
        for run in changed:
            print(f"set aside: {run.name} is now in {set_aside(self.place(run), self.base)}")

    def run(self, numbers: Any) -> int:
        """The runs of these numbers that are not complete, one after another."""
        results = self.results()
        code = 0
        for number in numbers:
            run = self.plan.runs[number]
            header = f"[{number + 1}/{len(self.plan.runs)}] {run.name}"
            if results[number].state == "complete":
                print(f"{header}: complete, skipped", flush=True)
                continue
            code = self.run_one(run, header) or code
            if code == STOPPED:
                print("stopped: the same command again goes on", flush=True)
                return STOPPED
        path = write_results(self.plan, self.results(), self.folder)
        print(f"\n{sweep_table(self.plan, self.results())}\n\nwritten: {path}", flush=True)
        return code

    def run_one(self, run: SweepRun, header: str) -> int:
        """One run in a process of its own -> 0, 1 where it failed, STOPPED where it was stopped."""
        place = self.place(run)
        link_base(self.base, place, self.plan.swept.stage, run.settings)
        on_cpu = run.settings.get("device_type") == "cpu"
        words = [
            *launcher(1 if on_cpu else gpu_count()),
            self.plan.command,
            *run.words(),
            "--replace",
        ]
        if self.state(run).get("state") == "started":
            words[-1] = "--resume"
        words.append(f"--run={self.run_name(run)}")
        log = place / "log.txt"
        print(f"{header}: {log}", flush=True)
        self.note(run, "started")
        began = time.monotonic()
        env = {**os.environ, "NANOCHAT_BASE_DIR": str(place), "WANDB_RUN_GROUP": self.plan.name}
        with open(log, "a", encoding="utf-8") as file:
            code = run_child(words, env=env, output=file)
        seconds = round(time.monotonic() - began, 1)
        if code in (STOPPED, 76):
            return STOPPED
        self.note(run, "failed" if code else "complete", seconds=seconds, exit_code=code)
        result = self.result(run)
        told = f"exit code {code}, {last_line(log)}" if code else result.told(self.plan.measure)
        print(f"{header}: {told} ({clock(seconds)})", flush=True)
        return int(code != 0)

    def run_name(self, run: SweepRun) -> str:
        """For trackers, all in one group."""
        name = run_name()
        return name if name == "dummy" else f"{name}-{run.name}"

    def submit(self, file: Path) -> int:
        """Hand the runs that are not complete to SLURM, as one array. Raises ValueError where it
        refuses.
        """
        left = [n for n, result in enumerate(self.results()) if result.state != "complete"]
        if not left:
            print(sweep_table(self.plan, self.results()))
            return 0
        if shutil.which("sbatch") is None:
            raise ValueError("--on=slurm: there is no sbatch on this machine; log in to one")
        self.folder.mkdir(parents=True, exist_ok=True)
        copy = self.folder / "sweep.yaml"  # what is edited later is another sweep
        atomic_write(copy, file.read_bytes())
        script = self.folder / "sweep.slurm"
        atomic_write(script, batch_script(self.plan, copy, self.base))
        options = sbatch_options(read_settings())
        words = ["sbatch", f"--array={spans(left)}", *options, *self.plan.sbatch, str(script)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{shlex.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
        print(f"{done.stdout.strip()}: {len(left)} runs, logs in {self.folder}", flush=True)
        print(f"the table: nanochat sweep {file} --show")
        return 0


def link_base(base: Path, place: Path, stage: str, settings: dict[str, Any]) -> None:
    """Make a run's own base directory: links to what the base directory holds, but for what runs
    write. Checkpoints of the swept stage are links one by one, where a run may start from them.
    """
    from nanochat.checkpoint_manager import FOLDERS

    place.mkdir(parents=True, exist_ok=True)
    own = FOLDERS[stage]
    for item in base.iterdir():
        if item.name in OWN_FOLDERS or item.name.startswith("."):
            continue
        if item.name != own:
            link(item, place / item.name)
        elif settings.get("source") == stage:
            (place / own).mkdir(exist_ok=True)
            for tag in item.iterdir():
                link(tag, place / own / tag.name)


def link(target: Path, at: Path) -> None:
    if not os.path.lexists(at):
        at.symlink_to(target.resolve(), target_is_directory=target.is_dir())


def last_line(log: Path) -> str:
    """What a failed run said last, the reason in most cases."""
    rows = log.read_text(encoding="utf-8", errors="replace").split("\n")
    told = [row.strip() for row in rows if row.strip()]
    errors = [row for row in told if row.startswith("error")]
    return (errors or told or ["nothing said"])[-1][:300]


def spans(numbers: list[int]) -> str:
    """Numbers as SLURM has them: 0-2,5."""
    parts: list[str] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            parts.append(str(start) if start == previous else f"{start}-{previous}")
            start = number
        previous = number
    return ",".join(parts)


def batch_script(plan: SweepPlan, copy: Path, base: Path) -> str:
    """One job of the array is one run. It goes back into the queue where it was stopped in time."""
    checkout = Path(__file__).resolve().parents[2]
    command = shlex.join(
        [sys.executable, "-m", "nanochat", "sweep", str(copy.resolve()), f"--name={plan.name}"]
    )
    return f"""#!/usr/bin/env bash
#SBATCH --job-name=nanochat-sweep-{plan.name}
#SBATCH --ntasks=1
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={copy.parent.resolve()}/slurm-%A_%a.log
cd {shlex.quote(str(checkout))} || exit 2
export PYTHONPATH={shlex.quote(str(checkout))}${{PYTHONPATH:+:$PYTHONPATH}}
export NANOCHAT_BASE_DIR={shlex.quote(str(base.resolve()))}
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
code=0
srun --ntasks=1 {command} --only="$SLURM_ARRAY_TASK_ID" || code=$?
case "$code" in
75 | 76 | 138) [ "${{SLURM_RESTART_COUNT:-0}}" -ge 20 ] ||
    {{ scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"; exit 0; }} ;;
esac
exit "$code"
"""
