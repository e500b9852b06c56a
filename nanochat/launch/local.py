"""Running a recipe on this machine: which steps are complete, one after the other, stop at the
first failure.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

from nanochat.launch.commands import call, find, load
from nanochat.launch.ledger import Ledger
from nanochat.launch.recipes import RECIPES, Recipe, RecipeConfig, RecipeStep, build, only_problems
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.entry import exit_code
from nanochat.runtime.output import output_is_the_result
from nanochat.runtime.previous import stamp
from nanochat.runtime.progress import clock

STOPPED = 75


def recipe(cfg: RecipeConfig) -> int:
    """`nanochat recipe list|show|run`. Returns an exit code."""
    if cfg.action != "run":
        output_is_the_result()
    if cfg.action == "list":
        for name in RECIPES:
            print(f"{name:6} {build(name).about}")
        print(f"\nOn this machine `auto` is {pick()}. Run one with `nanochat recipe run NAME`.")
        return 0
    if cfg.name == "auto" and cfg.on == "slurm":
        raise ValueError("recipe auto: this machine is not the one that trains; name the recipe")
    name = pick() if cfg.name == "auto" else cfg.name
    chosen = build(name, cfg.smoke, cfg.override)
    if cfg.action == "show":
        print(f"{chosen.name}: {chosen.about}\n")
        for step in chosen.steps:
            print(f"{step.name + ':':16}nanochat {shown(step, step.argv(cfg.run))}")
        return 0
    check(chosen, cfg)
    if cfg.smoke:  # a trial must not take the place of a trained model
        os.environ["NANOCHAT_BASE_DIR"] = str(base_dir() / "smoke")
    runner = RecipeRunner(chosen, cfg, Ledger(base_dir(), chosen.name))
    return runner.submit() if cfg.on == "slurm" else runner.run()


def pick() -> str:
    """The recipe for this machine's hardware. ValueError where there are GPUs that torch cannot
    use.
    """
    from nanochat.runtime.world import unusable_gpus

    count = gpu_count()
    if count == 0 and (problem := unusable_gpus()):
        raise ValueError(f"recipe auto: {problem}, or name the recipe: `nanochat recipe run cpu`")
    return "cpu" if count == 0 else "gpu1" if count == 1 else "node8"


def gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def check(chosen: Recipe, cfg: RecipeConfig) -> None:
    """Everything wrong with a recipe's settings, before its first step. Raises ValueError."""
    from nanochat.config import collect

    wrong = only_problems(chosen, cfg.only)
    if chosen.device == "cuda" and cfg.on == "here" and gpu_count() == 0:
        wrong.append(
            f"recipe {chosen.name}: needs a GPU and torch sees none; use `nanochat recipe run cpu`"
        )
    for step in chosen.steps:
        _, command, words = find([step.command, *step.argv(cfg.run)])
        if command.config is not None:
            _, problems = collect(load(command.config), words)
            wrong += [f"step {step.name}: {problem}" for problem in problems]
    if wrong:
        raise ValueError("\n".join(wrong))


@dataclass
class RecipeRunner:
    """Runs the steps of one recipe under one base directory."""

    recipe: Recipe
    cfg: RecipeConfig
    ledger: Ledger
    when: str = field(default_factory=stamp)  # name of the folder for what is set aside

    def run(self) -> int:
        """All steps in order, complete ones skipped. Returns 0, or the exit code of the step that
        failed.
        """
        prints, began, took = self.recipe.fingerprints(), time.monotonic(), {}
        steps = [s for s in self.recipe.steps if not self.cfg.only or s.name in self.cfg.only]
        self.prepare(steps, prints)
        for number, step in enumerate(steps, 1):
            header, fingerprint = f"[{number}/{len(steps)}] {step.name}", prints[step.name]
            if self.ledger.complete(step, fingerprint) and not step.always:
                say(f"{header}: complete, skipped (--fresh starts over)")
                continue
            argv = step.argv(self.cfg.run)
            if self.ledger.unfinished(step, fingerprint):
                argv += ["--resume"] * step.resumes  # hours of training
                argv += ["--replace"] * step.replaces
            so_far = clock(time.monotonic() - began)
            say(f"\n{header} ({so_far} so far): nanochat {shown(step, argv)}")
            if not step.always:
                say(*self.ledger.clear_way(step, fingerprint, self.when))
            self.ledger.note(step, fingerprint, "started", argv=argv)
            started = time.monotonic()
            if code := self.execute(step, argv):
                say(f"\n{verdict(step, code, self.cfg.fresh)}")
                return code
            took[step.name] = time.monotonic() - started
            self.ledger.note(
                step, fingerprint, "complete", argv=argv, seconds=round(took[step.name], 1)
            )
        say(summary(self.recipe, took, time.monotonic() - began))
        return 0

    def submit(self) -> int:
        """Download here, where there is a network; hand all other steps to SLURM."""
        from nanochat.launch.cluster.submission import submit_recipe

        prints = self.recipe.fingerprints()
        steps = [s for s in self.recipe.steps if not self.cfg.only or s.name in self.cfg.only]
        self.prepare(steps, prints)
        for step in (step for step in steps if step.download):
            if self.ledger.complete(step, prints[step.name]):
                continue
            self.ledger.note(step, prints[step.name], "started")
            if code := in_process([step.command, *step.argv()]):
                say(f"\n{verdict(step, code, self.cfg.fresh)}")
                return code
            self.ledger.note(step, prints[step.name], "complete")
        left = [step for step in steps if not step.download]
        for step in left:
            if not step.always:
                say(*self.ledger.clear_way(step, prints[step.name], self.when))
        return submit_recipe(self.recipe, self.cfg.run, self.ledger, left)

    def prepare(self, steps: list[RecipeStep], prints: dict[str, str]) -> None:
        """Start over if asked to, or see that no models are in the way; a report begins empty when
        no step is complete.
        """
        if self.cfg.fresh:
            say(*[line for step in steps for line in self.ledger.forget(step, self.when)])
        self.ask(steps, prints)
        if not self.cfg.only and not any(
            self.ledger.complete(s, prints[s.name]) for s in steps if not s.download
        ):
            say(*self.ledger.set_aside("report", self.when))

    def ask(self, steps: list[RecipeStep], prints: dict[str, str]) -> None:
        """Raise ValueError naming what other runs trained that would be replaced unasked."""
        if self.cfg.replace or self.cfg.smoke:  # nobody keeps what a trial has trained
            return
        trained = [
            place
            for step in steps
            if (step.resumes or step.replaces) and not self.ledger.complete(step, prints[step.name])
            for place in self.ledger.in_the_way(step, prints[step.name])
        ]
        if trained:
            raise ValueError(
                f"recipe {self.recipe.name}: {', '.join(trained)} under {self.ledger.base}: made "
                "by another run or with other settings, and would be replaced; add --replace to "
                "move them into a dated folder, or train beside them with --override "
                "base.model_tag=NAME"
            )

    def execute(self, step: RecipeStep, argv: list[str]) -> int:
        """Run one step; returns its exit code. On a CPU in this process, which saves importing
        torch again.
        """
        if self.recipe.device == "cpu":
            return in_process([step.command, *argv])
        every = step.every_gpu and self.recipe.name != "gpu1"
        return run_child([*launcher(gpu_count() if every else 1), step.command, *argv])


def launcher(processes: int) -> list[str]:
    """The words that `nanochat` begins with, for that many processes on this machine."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *(torchrun if processes > 1 else []), "-m", "nanochat"]


def run_child(
    words: list[str], env: Mapping[str, str] | None = None, output: TextIO | None = None
) -> int:
    """Run a process to its end and return its exit code. `output`: a file for all that it prints.

    A signal that asks this one to stop is passed on, so that a training saves; Ctrl+C reaches the
    child by itself, as the terminal sends it to both. A child that fails after such a signal counts
    as stopped: torchrun ends with 1 whatever its workers end with.
    """
    asked: list[int] = []
    errors = None if output is None else subprocess.STDOUT
    with subprocess.Popen(words, env=env, stdout=output, stderr=errors) as child:

        def on_signal(number: int, frame: FrameType | None) -> None:
            asked.append(number)
            if number != signal.SIGINT:
                child.terminate()  # also for SIGUSR1, of which torchrun would die

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        old = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            code = child.wait()
            return STOPPED if asked and code else code
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def verdict(step: RecipeStep, code: int, fresh: bool) -> str:
    """What to do after a step that did not finish."""
    again = "run the same command again" + " without --fresh" * fresh
    if code in (STOPPED, 76):  # train/interrupt.py: saved and stopped, or another rank was lost
        return f"step {step.name} was stopped: {again} and it goes on from its last checkpoint"
    kept = "complete steps are kept"
    if step.resumes:  # torchrun ends with 1 also when its workers have saved and stopped
        kept += ", and this one goes on from its last checkpoint, if it has one"
    return f"step {step.name} failed: put it right and {again}; {kept}"


def shown(step: RecipeStep, argv: list[str]) -> str:
    return shlex.join([step.command, *argv])


def in_process(words: list[str]) -> int:
    """One command in this process -> its exit code."""
    try:
        return exit_code(lambda: call(*find(words)))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def summary(chosen: Recipe, took: dict[str, float], total_s: float) -> str:
    """What ran, how long it took, how much memory, and what to do next."""
    rows = "".join(f"  {name:16}{clock(seconds):>8}\n" for name, seconds in took.items())
    return (
        f"\nrecipe {chosen.name}: {len(took)} of {len(chosen.steps)} steps run in "
        f"{clock(total_s)}{peak_memory()}\n"
        f"{rows}\nTalk to the model: nanochat chat-cli -i sft     in the browser: nanochat "
        "chat-web -i sft\n"
        f"The report:        {base_dir() / 'report' / 'report.md'}"
    )


def peak_memory() -> str:
    """`, 1.9 GB at most`, where the system tells (not on Windows)."""
    try:
        import resource
    except ImportError:
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f", {peak / (1e9 if sys.platform == 'darwin' else 1e6):.1f} GB of memory at most"


def say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)
