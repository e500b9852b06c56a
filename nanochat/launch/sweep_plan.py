"""A sweep's file, read and checked, and the runs that it asks for.

    command: base-train          # or mid-train, chat-sft, chat-rl
    settings: {depth: 2, num_iterations: 40}
    grid: {matrix_lr: [0.01, 0.02, 0.04], depth: [2, 4]}

Every combination of a grid is a run. Instead of `grid` there may be `random`, with a number of
draws: `{runs: 8, seed: 1, matrix_lr: {log_uniform: [0.002, 0.2]}, depth: {choice: [2, 4]}}`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nanochat.config import collect
from nanochat.launch.commands import COMMANDS, load
from nanochat.runtime.errors import reason
from nanochat.runtime.suggest import suggestion

MAX_RUNS = 1000
KEYS = ("command", "name", "settings", "grid", "random", "measure", "goal", "x", "sbatch")
DRAWS = ("uniform", "log_uniform", "choice")
OWN = ("resume", "resume_from_step", "replace", "run")  # what the sweep itself decides


@dataclass(frozen=True, kw_only=True)
class SweptCommand:
    """A command that can be swept. `stage`: of its checkpoints; `section`: of its record."""

    stage: str
    section: str
    measure: str = "val_bpb"
    goal: str = "min"


COMMANDS_SWEPT = {
    "base-train": SweptCommand(stage="base", section="base_train"),
    "mid-train": SweptCommand(stage="mid", section="mid_train"),
    "chat-sft": SweptCommand(stage="sft", section="chat_sft"),
    "chat-rl": SweptCommand(stage="rl", section="chat_rl", measure="pass@1", goal="max"),
}


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run. `varied`: what sets it apart from the others; `settings`: all of its own."""

    varied: dict[str, Any]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """`matrix_lr=0.02,depth=4`, as a folder may be called: the same whatever else the sweep
        holds.
        """
        text = ",".join(f"{name}={shown(value)}" for name, value in self.varied.items())
        plain = re.sub(r"[^\w.=,+-]", "_", text)
        if plain == text and len(plain) <= 120:
            return plain
        return f"{plain[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def words(self) -> list[str]:
        """The flags of the command."""
        words = []
        for name, value in self.settings.items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}={shown(each)}" for each in values]
        return words


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a file asks for. `measure`: the number of the record that counts; `x`: what the picture
    has it over, by default the first setting that varies. `sbatch`: options for SLURM.
    """

    name: str
    command: str
    runs: tuple[SweepRun, ...]
    measure: str
    goal: str
    x: str | None = None
    sbatch: tuple[str, ...] = ()

    @property
    def swept(self) -> SweptCommand:
        return COMMANDS_SWEPT[self.command]

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that vary, in the order of the file."""
        return tuple(self.runs[0].varied)


@dataclass
class _Reading:
    """A file being read: `data`, and what is wrong with it so far."""

    data: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def mapping(self, key: str) -> dict[str, Any]:
        """The names and values under a key, `{}` where there is none."""
        value = self.data.get(key) or {}
        if not isinstance(value, dict):
            self.problems.append(f"{key}: must hold `setting: ...` lines")
            return {}
        return {str(name).replace("-", "_"): each for name, each in value.items()}


def read_sweep(path: Path, name: str | None = None) -> SweepPlan:
    """The plan in a YAML file. Raises ValueError with everything that is wrong in it, the settings
    of every run included.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); name a YAML file, as in "
            "docs/how-to/sweep.md"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid YAML ({reason(error)})") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path}: must hold `key: value` lines, with {', '.join(KEYS)}")
    reading = _Reading({str(key): value for key, value in data.items()})
    plan = _plan(reading, name or str(data.get("name") or path.stem))
    if reading.problems or plan is None:
        said = dict.fromkeys(reading.problems)
        raise ValueError("\n".join(f"{path}: {line}" for line in said))
    return plan


def _plan(reading: _Reading, name: str) -> SweepPlan | None:
    data, problems = reading.data, reading.problems
    for key in data:
        if key not in KEYS:
            problems.append(f"{key}: unknown{suggestion(key, KEYS)}")
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        problems.append(f"name={name}: use letters, digits, '.', '_' and '-' only")
    command = str(data.get("command", "base-train")).replace("_", "-")
    if command not in COMMANDS_SWEPT:
        problems.append(f"command={command}: cannot be swept; use {', '.join(COMMANDS_SWEPT)}")
        return None
    swept = COMMANDS_SWEPT[command]
    goal = data.get("goal", swept.goal)
    if goal not in ("min", "max"):
        problems.append(f"goal={goal}: must be min or max")
    settings = reading.mapping("settings")
    runs = [SweepRun(varied=varied, settings={**settings, **varied}) for varied in _varied(reading)]
    for setting in {**settings, **(runs[0].varied if runs else {})}:
        if setting in OWN:
            problems.append(f"{setting}: the sweep itself decides that; leave it out")
    _check_runs(command, runs, problems)
    if problems:
        return None
    options = data.get("sbatch") or []
    return SweepPlan(
        name=name,
        command=command,
        runs=tuple({run.name: run for run in runs}.values()),
        measure=str(data.get("measure", swept.measure)),
        goal=str(goal),
        x=None if data.get("x") is None else str(data["x"]),
        sbatch=tuple(map(str, options if isinstance(options, list) else str(options).split())),
    )


def _check_runs(command: str, runs: list[SweepRun], problems: list[str]) -> None:
    """Every run's settings, as its command line will be checked."""
    settings = COMMANDS[command].config
    assert settings is not None
    config = load(settings)
    for run in runs:
        if any(isinstance(value, dict) for value in run.settings.values()):
            problems.append("settings: hold single values or lists, no settings inside of settings")
            return
        problems += collect(config, run.words())[1]


def _varied(reading: _Reading) -> list[dict[str, Any]]:
    """The settings that vary, of each run."""
    problems = reading.problems
    grid, drawn = reading.mapping("grid"), reading.mapping("random")
    if bool(grid) == bool(drawn):
        problems.append("grid, random: give one of them, with the settings that vary")
        return []
    return _combinations(grid, problems) if grid else _draws(drawn, problems)


def _combinations(grid: dict[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            problems.append(f"grid.{name}={values}: must be a list of values, e.g. [1, 2]")
    if problems:
        return []
    n_runs = math.prod(len(values) for values in grid.values())
    if n_runs > MAX_RUNS:
        problems.append(f"grid: makes {n_runs} runs; at most {MAX_RUNS} are possible")
        return []
    found = itertools.product(*grid.values())
    return [dict(zip(grid, values, strict=True)) for values in found]


def _draws(drawn: dict[str, Any], problems: list[str]) -> list[dict[str, Any]]:
    """Each draw has random numbers of its own, so more runs leave the first ones as they were."""
    n_runs, seed = drawn.pop("runs", None), drawn.pop("seed", 0)
    if not isinstance(n_runs, int) or not 1 <= n_runs <= MAX_RUNS:
        problems.append(f"random.runs={n_runs}: must be a number of draws from 1 to {MAX_RUNS}")
    if not drawn:
        problems.append("random: names no setting that varies")
    for name, how in drawn.items():
        if problem := _bad_draw(how):
            problems.append(f"random.{name}={how}: {problem}")
    if problems:
        return []
    rows = []
    for number in range(n_runs):
        chance = random.Random(f"{seed}/{number}")
        rows.append({name: _draw(chance, how) for name, how in drawn.items()})
    return rows


def _bad_draw(how: Any) -> str | None:
    """Why a value cannot be drawn so."""
    if not isinstance(how, dict) or len(how) != 1 or next(iter(how)) not in DRAWS:
        return "use one of {uniform: [low, high]}, {log_uniform: [low, high]}, {choice: [...]}"
    ((kind, values),) = how.items()
    if not isinstance(values, list) or not values:
        return "must hold a list"
    if kind == "choice":
        return None
    ends = [number_of(value) for value in values]
    if len(ends) != 2 or None in ends or not ends[0] < ends[1]:  # type: ignore[operator]
        return "must hold two numbers, the lower one first"
    if kind == "log_uniform" and not ends[0] > 0:  # type: ignore[operator]
        return "log_uniform needs numbers above 0"
    return None


def _draw(chance: random.Random, how: dict[str, list[Any]]) -> Any:
    ((kind, values),) = how.items()
    if kind == "choice":
        return chance.choice(values)
    low, high = (float(value) for value in values)
    if kind == "log_uniform":
        value = math.exp(chance.uniform(math.log(low), math.log(high)))
    else:
        value = chance.uniform(low, high)
    if all(isinstance(end, int) for end in values):
        return round(value)
    return float(f"{value:.4g}")


def number_of(value: Any) -> float | None:
    """A number, also one that YAML takes for text (1e-3); None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def shown(value: Any) -> str:
    """A value as a word of a command line."""
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)
