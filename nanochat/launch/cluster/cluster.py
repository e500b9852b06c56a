"""`nanochat cluster init|status|options`: a SLURM cluster's settings, and where the jobs are."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from nanochat.config import Positional
from nanochat.config.fields import fields_of
from nanochat.launch.cluster.job_status import job_progress, status_table
from nanochat.launch.cluster.proposals import Offer, propose, read_offer
from nanochat.launch.cluster.settings import (
    FILES,
    VARIABLES,
    ClusterSettings,
    read_settings,
    sbatch_options,
    value_problem,
)
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.files import atomic_write
from nanochat.runtime.machine import ROOT
from nanochat.runtime.output import output_is_the_result


@dataclass
class ClusterConfig:
    """A SLURM cluster: `init` writes its settings to cluster.env, `status` shows your jobs,
    `options` prints what the settings mean to sbatch.
    """

    action: Positional[Literal["init", "status", "options"]] = "status"
    """What to do."""
    yes: bool = False
    """init: take what is proposed without asking, as is done when nobody can answer."""
    job: str = ""
    """status: only how far this job has come, in one line."""
    line: bool = False
    """status: with --job, nothing but the stage, step and loss, as the batch scripts put it into a
    job's comment.
    """


def cluster(cfg: ClusterConfig) -> str:
    """Returns what to print. Raises ValueError where there is no SLURM."""
    if cfg.action == "init":
        return init(cfg.yes)
    output_is_the_result()
    if cfg.action == "options":
        return " ".join(sbatch_options(read_settings()))
    settings = read_settings()
    if settings.base_dir:
        os.environ.setdefault("NANOCHAT_BASE_DIR", settings.base_dir)
    if cfg.job:
        at = str(job_progress(base_dir(), cfg.job))
        return at if cfg.line else f"job {cfg.job}: {at or 'nothing is known of it'}"
    return status_table(base_dir(), getpass.getuser())


def init(yes: bool, root: Path = ROOT, ask: Callable[[str], str] = input) -> str:
    """Ask for each setting, with a proposal, and write cluster.env; let SLURM try it."""
    offer = read_offer(getpass.getuser())
    print("Partitions:")
    for partition in offer.partitions:
        print(f"  {partition}")
    if offer.accounts:
        print(f"Your accounts: {', '.join(offer.accounts)}; QOS: {', '.join(offer.qos) or 'any'}")
    # What the environment says for this one shell belongs into no file.
    env = {name: os.environ[name] for name in os.environ if name not in VARIABLES.values()}
    proposed = propose(offer, read_settings(root, env), env)
    if not (yes or not sys.stdin.isatty()) or ask is not input:
        print("\nEnter takes what is in brackets, a dash leaves a setting empty.")
        proposed = asked(offer, proposed, ask)
    path = root / FILES[0]
    atomic_write(path, as_text(proposed))
    options = sbatch_options(proposed)
    done = subprocess.run(
        ["sbatch", "--test-only", *options, "--wrap=true"],
        check=False,
        capture_output=True,
        text=True,
    )
    said = (done.stderr or done.stdout).strip()
    if done.returncode:
        return f"written: {path}\nwarning: SLURM refuses a job with it: {said}; correct it there"
    return (
        f"written: {path}\nSLURM would take a job with it: {said}\nnow: bash scripts/speedrun.slurm"
    )


def asked(offer: Offer, proposed: ClusterSettings, ask: Callable[[str], str]) -> ClusterSettings:
    """The settings as people answer; what cannot be is asked again."""
    values: dict[str, str] = {}
    comments = comments_of()
    for name, value in vars(proposed).items():
        while True:
            try:
                answer = ask(f"{comments[name]}\n  {name} [{value}]: ").strip() or value
            except EOFError:
                answer = value
            answer = "" if answer == "-" else answer
            if not (problem := wrong(name, answer, offer)):
                break
            print(f"  {problem}")
        values[name] = answer
    return ClusterSettings(**values)


def wrong(name: str, value: str, offer: Offer) -> str:
    """Why SLURM here would not know the value; "" where it would."""
    names = {"partition": [p.name for p in offer.partitions], "account": offer.accounts}
    known = names.get(name, [])
    if value and known and value not in known:
        return f"{name}={value}: there is none; one of {', '.join(known)}"
    return value_problem(name, value)


def comments_of() -> Mapping[str, str]:
    return {field.name: field.help for field in fields_of(ClusterSettings)}


def as_text(settings: ClusterSettings) -> str:
    """The file, each setting under its comment, empty ones commented out."""
    lines = ["# What this SLURM cluster wants to be told; `nanochat cluster init` writes it."]
    comments = comments_of()
    for field in fields(settings):
        value = getattr(settings, field.name)
        lines += ["", f"# {comments[field.name]}", f"{'' if value else '#'}{field.name}={value}"]
    return "\n".join(lines) + "\n"
