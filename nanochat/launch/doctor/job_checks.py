"""What a job needs besides machine and data: addresses and ports, mail, W&B, modules, time."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from importlib import util
from pathlib import Path

from nanochat.launch.cluster.settings import ClusterSettings, seconds
from nanochat.launch.doctor.finding import Finding, error, ok, warning
from nanochat.runtime.programs import output_of
from nanochat.runtime.progress import clock
from nanochat.runtime.slurm_nodes import expand_nodelist, node_address
from nanochat.runtime.trackers import run_name

MOST_RESTARTS = 20  # of scripts/slurm_job.sh
KEY_LENGTH = 40  # of W&B's keys; newer ones are longer
KEY_PAGE = "copy it from https://wandb.ai/authorize, or run `wandb login` on the login node"
HUB_PATIENCE_S = 3.0


def ports(env: Mapping[str, str]) -> Finding:
    """Whether processes of this machine can meet: on the port that is named, else on any."""
    wanted = env.get("MASTER_PORT", "")
    number = int(wanted) if wanted.isdigit() and int(wanted) < 65536 else 0
    try:
        with socket.create_server(("127.0.0.1", number)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2.0):
                pass
    except OSError as problem:
        what = f"port {number} of 127.0.0.1: {problem.strerror or problem}"
        fix = "name another one with MASTER_PORT" if number else "the loopback network is down"
        return error("ports", what, fix)
    return ok("ports", f"127.0.0.1:{number or 'any'} can be used")


def hub(offline: bool, endpoint: str) -> Finding:
    """Whether downloads can come."""
    if offline:
        return ok("network", "not asked (offline)")
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    port = 443 if endpoint.startswith("https") else int(endpoint.rpartition(":")[2] or 80)
    try:
        with socket.create_connection((host, port), timeout=HUB_PATIENCE_S):
            return ok("network", f"{host} answers")
    except OSError as problem:
        fix = "bring everything from a machine with internet, and give --offline"
        return warning("network", f"{host}: {problem.strerror or problem}", fix)


def mail(settings: ClusterSettings) -> list[Finding]:
    """Whom SLURM writes to; nothing where there is no SLURM."""
    if not (shutil.which("sbatch") or os.environ.get("SLURM_JOB_ID")):
        return []
    if not settings.email:
        fix = "email=you@example.org in .env.local, or sbatch --mail-user=..."
        return [warning("e-mail", "nobody is told when a job ends", fix)]
    return [ok("e-mail", settings.email)]


def tracking(settings: ClusterSettings, env: Mapping[str, str]) -> list[Finding]:
    """W&B: the run's name, whether the package is there, the key. Never an error while offline."""
    run, mode = run_name(), settings.wandb_mode or "online"
    if run == "dummy":
        told = "WANDB_RUN is not set: nothing goes to W&B; training, checkpoints and metrics.jsonl"
        fix = "WANDB_RUN=name before the command gives the run a name"
        return [warning("W&B", f"{told} are the same", fix)]
    if mode == "disabled":
        return [ok("W&B", f"run {run}, WANDB_MODE=disabled: metrics.jsonl only")]
    if util.find_spec("wandb") is None:
        fix = "NANOCHAT_EXTRAS=wandb bash scripts/setup_environment.sh"
        return [warning("W&B", f"run {run}, but wandb is not installed", fix)]
    if mode == "offline":
        return [ok("W&B", f"run {run}, offline: `wandb sync` on the login node sends it")]
    if problem := key_problem(env):
        return [error("W&B", f"run {run}: {problem}", KEY_PAGE)]
    return [ok("W&B", f"run {run}, online")]


def key_problem(env: Mapping[str, str]) -> str:
    """What is wrong with the key for W&B, as far as one sees without asking; "" when nothing."""
    key = env.get("WANDB_API_KEY", "")
    if not key:
        netrc = Path(env.get("NETRC") or Path(env.get("HOME", "/")) / ".netrc")
        logged_in = netrc.is_file() and "wandb" in netrc.read_text(errors="replace")
        return "" if logged_in else "there is no key (WANDB_API_KEY, or `wandb login`)"
    if key != key.strip() or any(char.isspace() for char in key):
        return "WANDB_API_KEY has blanks or line ends in it"
    if len(key) < KEY_LENGTH:
        return f"WANDB_API_KEY has {len(key)} characters, and keys have {KEY_LENGTH} or more"
    return ""


def modules(settings: ClusterSettings, env: Mapping[str, str]) -> list[Finding]:
    """Whether the modules that cluster.env names can be loaded on this machine."""
    if not settings.modules:
        return []
    init = settings.module_init
    if init and not Path(init).is_file():
        return [error("modules", f"module_init={init}: no such file on this machine")]
    there = init or any(name.startswith("BASH_FUNC_module") for name in env)
    if not (there or env.get("LMOD_CMD") or env.get("MODULESHOME")):
        fix = "leave modules= empty, or name the file that makes it: module_init=/etc/profile.d/..."
        return [error("modules", f"no command `module` here for modules={settings.modules}", fix)]
    return [ok("modules", env.get("LOADEDMODULES") or settings.modules)]


def time_limit(
    settings: ClusterSettings, env: Mapping[str, str], hours: float | None
) -> list[Finding]:
    """The job's time, or the one that cluster.env asks for, against the hours of the recipe."""
    job, limit = env.get("SLURM_JOB_ID"), settings.time
    if job:
        limit = (output_of("squeue", "-h", "-j", job, "-o", "%L") or "").strip()
    limit_s = seconds(limit) if limit else None
    if limit_s is None or hours is None:
        return []
    found = f"{clock(limit_s)} of the run's about {hours:.3g} hours"
    if limit_s >= hours * 3600:
        return [ok("time limit", found)]
    restarts = hours * 3600 / limit_s
    if restarts > MOST_RESTARTS:
        fix = f"it would be requeued {restarts:.0f} times, and after {MOST_RESTARTS} it ends"
        return [error("time limit", found, f"{fix}: ask for more with --time")]
    return [warning("time limit", found, "it saves, goes back into the queue and goes on")]


def job_nodes(env: Mapping[str, str]) -> list[Finding]:
    """In a job on several nodes: is there an address where the processes can meet?"""
    nodes = expand_nodelist(env.get("SLURM_JOB_NODELIST", ""))
    if len(nodes) < 2:
        return []
    address = env.get("MASTER_ADDR") or node_address(nodes[0])
    if address is None:
        found = f"{nodes[0]}: neither the network nor `scontrol show node` has its address"
        return [error("nodes", found, "set MASTER_ADDR to one")]
    return [ok("nodes", f"{', '.join(nodes)}, meeting at {address}")]
