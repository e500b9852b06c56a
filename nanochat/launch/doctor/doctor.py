"""`nanochat doctor`: everything that a run will need, before it starts."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanochat.launch.cluster.settings import ClusterSettings, read_settings
from nanochat.launch.doctor import folder_checks, job_checks, machine_checks
from nanochat.launch.doctor.finding import Finding, as_json, as_lines, error
from nanochat.launch.recipes import Recipe, RecipeStep, build, only_problems
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.entry import WRONG_INPUT
from nanochat.runtime.errors import reason

PATIENCE_S = 60.0  # hanging network disks are what people call a doctor for

Check = Callable[[], "Finding | list[Finding]"]


@dataclass
class DoctorConfig:
    """Look at everything that a run will need, one line each; exit code 2 when something is wrong.

    Nothing is downloaded or trained, and what is written is removed again.
    """

    offline: bool = False
    """There will be no network: what a recipe would download has to be here. Batch jobs set it."""
    recipe: str = ""
    """Also look at all files that this recipe reads: cpu, gpu1, node8, d32 or modern."""
    only: tuple[str, ...] = ()
    """Of the recipe, look at these steps alone."""
    override: tuple[str, ...] = ()
    """A setting of the recipe that will be another one: base.depth=12. May be given several times.
    """
    json: bool = False
    """Print one JSON object for programs."""


def doctor(cfg: DoctorConfig) -> int:
    """Print the findings. Returns an exit code; raises ValueError for settings that cannot be."""
    settings, problems = _settings()
    os.environ.setdefault("NANOCHAT_BASE_DIR", settings.base_dir or "~/.cache/nanochat")
    recipe = build(cfg.recipe, overrides=cfg.override) if cfg.recipe else None
    if recipe is not None and (wrong := only_problems(recipe, cfg.only)):
        raise ValueError("\n".join(wrong))
    findings = problems + run_checks(checks(cfg, settings, recipe))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(as_json(findings) if cfg.json else as_lines(findings, colour))
    return WRONG_INPUT if any(finding.state == "error" for finding in findings) else 0


def _settings() -> tuple[ClusterSettings, list[Finding]]:
    try:
        return read_settings(), []
    except ValueError as problem:
        return ClusterSettings(), [error("cluster.env", row) for row in str(problem).splitlines()]


def checks(cfg: DoctorConfig, settings: ClusterSettings, recipe: Recipe | None) -> list[Check]:
    """What is looked at, in the order in which it is told."""
    env = os.environ
    needs_gpu = recipe is not None and _needs_gpu(recipe, settings)
    steps = [s for s in recipe.steps if not cfg.only or s.name in cfg.only] if recipe else []
    found: list[Check] = [
        machine_checks.python,
        lambda: machine_checks.torch_build(needs_gpu),
        lambda: machine_checks.gpus(needs_gpu, env),
        lambda: machine_checks.slurm_step(env),
        lambda: folder_checks.base_folder(_wanted_bytes(recipe, steps)),
        folder_checks.home_folder,
        lambda: folder_checks.quotas(base_dir(), _wanted_bytes(recipe, steps)),
        lambda: folder_checks.file_locks(base_dir()),
        machine_checks.shared_memory,
        machine_checks.limits,
        lambda: job_checks.ports(env),
        lambda: job_checks.job_nodes(env),
        machine_checks.git,
        lambda: job_checks.modules(settings, env),
        lambda: job_checks.mail(settings),
        lambda: job_checks.tracking(settings, env),
        lambda: job_checks.time_limit(settings, env, _hours(recipe)),
    ]
    if recipe is not None:
        found += [lambda: _network(cfg)] if recipe.device == "cuda" else []
        found += [lambda: _data(recipe, steps, cfg.offline)]
    return found


def _needs_gpu(recipe: Recipe, settings: ClusterSettings) -> bool:
    asked = next(step.settings.get("device_type") for step in recipe.steps if step.name == "base")
    return recipe.device == "cuda" and (asked or settings.device_type) != "cpu"


def _network(cfg: DoctorConfig) -> Finding:
    from nanochat.dataset.hub import hub_endpoint, offline

    return job_checks.hub(cfg.offline or offline(), hub_endpoint())


def _data(recipe: Recipe, steps: Sequence[RecipeStep], no_network: bool) -> list[Finding]:
    from nanochat.dataset.hub import offline
    from nanochat.launch.doctor.data_checks import data_findings

    return data_findings(recipe, steps, no_network or offline())


def _wanted_bytes(recipe: Recipe | None, steps: Sequence[RecipeStep]) -> float:
    if recipe is None:
        return 0.0
    from nanochat.cost import checkpoint_bytes
    from nanochat.launch.doctor.data_checks import wanted_bytes
    from nanochat.launch.doctor.recipe_sizes import pretraining_settings

    one = checkpoint_bytes(pretraining_settings(recipe).model_config)
    return wanted_bytes(recipe, steps, one)


def _hours(recipe: Recipe | None) -> float | None:
    if recipe is None:
        return None
    from nanochat.launch.doctor.recipe_sizes import pretraining_hours

    return pretraining_hours(recipe)


def run_checks(found: Sequence[Check], patience_s: float = PATIENCE_S) -> list[Finding]:
    """All findings, in order. The checks run side by side; one that hangs is told as that."""
    results: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()

    def run(number: int, check: Check) -> None:
        try:
            made = check()
        except Exception as problem:  # the other checks still have something to say
            made = error("doctor", f"a check failed: {reason(problem)}")
        results.put((number, made if isinstance(made, list) else [made]))

    for number, check in enumerate(found):
        threading.Thread(target=run, args=(number, check), daemon=True).start()
    done: dict[int, list[Finding]] = {}
    try:
        while len(done) < len(found):
            number, made = results.get(timeout=patience_s)
            done[number] = made
    except queue.Empty:
        hanging = "a check hangs: a network disk that does not answer?"
        done |= {n: [error("doctor", hanging)] for n in range(len(found)) if n not in done}
    return [finding for number in sorted(done) for finding in done[number]]
