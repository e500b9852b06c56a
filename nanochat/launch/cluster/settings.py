"""What this cluster wants to be told: `name=value` lines in `cluster.env` and `.env.local` of the
checkout. The shell scripts read the same two files (scripts/setup.sh).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from nanochat.runtime.machine import ROOT
from nanochat.runtime.suggest import suggestion

FILES = ("cluster.env", ".env.local")  # a person's own file comes second, and wins
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^#]*))")
TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
TIME_HELP = "write minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS, e.g. 12:00:00"


@dataclass(kw_only=True)
class ClusterSettings:
    """Empty: left to SLURM or to the environment. The comments are those of `cluster.env`."""

    partition: str = ""
    """partition (queue) of the jobs"""
    account: str = ""
    """account or project that is charged"""
    qos: str = ""
    """quality of service"""
    constraint: str = ""
    """feature that a node must have, such as a100"""
    time: str = ""
    """time limit; a job that reaches it saves and goes back into the queue"""
    nodes: str = ""
    """nodes of a job"""
    gpus_per_node: str = ""
    """GPUs of each node; empty: whole nodes with all they have"""
    cpus_per_gpu: str = ""
    """processor cores for each GPU"""
    modules: str = ""
    """modules to load, separated by blanks, such as cuda/12.8"""
    module_init: str = ""
    """file that makes the command `module`, where jobs do not have it by themselves"""
    base_dir: str = ""
    """NANOCHAT_BASE_DIR: all artefacts, tens of gigabytes: on scratch, not in the home directory"""
    venv: str = ""
    """NANOCHAT_VENV: the Python environment; empty: .venv in the checkout"""
    hf_home: str = ""
    """HF_HOME: what other tools have fetched from the hub"""
    email: str = ""
    """whom SLURM writes to"""
    wandb_mode: str = ""
    """WANDB_MODE: offline (sent later from the login node), online or disabled"""
    device_type: str = ""
    """cuda or cpu; empty: cuda where the job has GPUs"""


NAMES = tuple(item.name for item in fields(ClusterSettings))
VARIABLES = {"base_dir": "NANOCHAT_BASE_DIR", "venv": "NANOCHAT_VENV", "hf_home": "HF_HOME"}


def read_settings(root: Path = ROOT, env: Mapping[str, str] = os.environ) -> ClusterSettings:
    """Both files, and the environment's variables above them. Raises ValueError naming each line
    that cannot be used.
    """
    found: dict[str, str] = {}
    problems: list[str] = []
    for name in FILES:
        path = root / name
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            _read(text, name, found, problems)
    for name, variable in VARIABLES.items():
        found[name] = env.get(variable) or replaced(found.get(name, ""), env)
    found["email"] = found.get("email") or env.get("EMAIL", "")
    found["wandb_mode"] = env.get("WANDB_MODE") or found.get("wandb_mode", "")
    if problems:
        raise ValueError("\n".join(problems))
    return ClusterSettings(**found)


def _read(text: str, file: str, found: dict[str, str], problems: list[str]) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.match(line)
        name = match[1] if match else ""
        if match and name in NAMES:
            found[name] = next(filter(None, match.groups()[1:]), "").strip()
            problem = value_problem(name, found[name])
            problems += [f"{file}:{number}: {problem}"] if problem else []
        elif file == FILES[0]:  # the other one may hold what other programs read
            fix = suggestion(name, NAMES) if match else "; write name=value"
            problems.append(f"{file}:{number}: {name or line.strip()}: unknown{fix}")


def replaced(place: str, env: Mapping[str, str]) -> str:
    """`$SCRATCH/${USER}` and a `~/` at the beginning replaced, as the shell scripts do."""
    found = re.sub(r"\$\{?([A-Za-z_]\w*)\}?", lambda match: env.get(match[1], ""), place)
    return f"{env.get('HOME', '')}{found[1:]}" if found.startswith("~/") else found


def value_problem(name: str, value: str) -> str:
    """What is wrong with a setting's value, or ""."""
    if value and name in ("nodes", "gpus_per_node", "cpus_per_gpu") and not _is_count(value):
        return f"{name}={value}: must be a whole number above 0"
    if value and name == "time" and seconds(value) is None:
        return f"{name}={value}: is no time limit; {TIME_HELP}"
    if value and name == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        return f"{name}={value}: is no address, such as you@example.org"
    if value and name == "device_type" and value not in ("cuda", "cpu"):
        return f"{name}={value}: use cuda or cpu"
    if value and name == "wandb_mode" and value not in ("offline", "online", "disabled"):
        return f"{name}={value}: use offline, online or disabled"
    return ""


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) > 0


def seconds(limit: str) -> int | None:
    """SLURM's way of writing a time limit (`90`, `1:30:00`, `2-12`) in seconds; None for what is
    none, such as UNLIMITED.
    """
    match = TIME.fullmatch(limit.strip())
    if not match:
        return None
    days, *rest = match.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        units: tuple[int, ...] = (3600, 60, 1)
    else:  # minutes, minutes:seconds or hours:minutes:seconds
        units = {1: (60,), 2: (60, 1), 3: (3600, 60, 1)}[len(numbers)]
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))


def sbatch_options(settings: ClusterSettings) -> list[str]:
    """The options of `sbatch` that the settings ask for."""
    chosen = ("partition", "account", "qos", "constraint", "time", "nodes")
    words = [f"--{name}={getattr(settings, name)}" for name in chosen if getattr(settings, name)]
    if settings.gpus_per_node:  # a part of a node, which others may share
        words += ["--oversubscribe", f"--gpus-per-node={settings.gpus_per_node}"]
        words.append(f"--ntasks-per-node={settings.gpus_per_node}")
        if settings.cpus_per_gpu:
            words.append(f"--cpus-per-task={settings.cpus_per_gpu}")
    if settings.email:
        words += [f"--mail-user={settings.email}", "--mail-type=BEGIN,END,FAIL,REQUEUE"]
    return words
