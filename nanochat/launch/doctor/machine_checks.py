"""The machine: Python, torch, GPUs and who uses them, shared memory, limits, git."""

from __future__ import annotations

import csv
import platform
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path

from nanochat.launch.doctor.finding import Finding, error, ok, warning
from nanochat.runtime.allocated_gpus import allocated_gpus
from nanochat.runtime.programs import output_of

SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_BYTES = 2**30
ENOUGH_FILES = 4096
FREE_SHARE = 0.9  # of a GPU's memory: less is free when others use it
GPU_BUILD = "`NANOCHAT_EXTRAS=gpu bash scripts/setup_environment.sh` installs one"


def python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return error("Python", found, "nanochat needs 3.10 to 3.13")
    return ok("Python", found)


def torch_build(needs_gpu: bool) -> Finding:
    """The installed build, without loading it: that takes longer than all other checks together."""
    if util.find_spec("torch") is None:
        return error("torch", "is not installed", "run `bash scripts/setup_environment.sh`")
    version = metadata.version("torch")
    if needs_gpu and version.endswith("+cpu"):
        return error("torch", f"{version} is a build for CPUs", GPU_BUILD)
    return ok("torch", version)


def gpus(needs_gpu: bool, env: Mapping[str, str]) -> list[Finding]:
    """Each GPU with its free memory, or why there is none. Loads torch only where there are GPUs
    to try it on.
    """
    told = allocated_gpus(env)
    if told is None:
        return [_no_gpu(needs_gpu, env)]
    if env.get("SLURM_JOB_ID") and not needs_gpu:
        return [ok("GPU", f"{told}, not used")]
    found = []
    rows = _query("index,name,memory.free,memory.total,driver_version", "gpu")
    for index, name, free_mb, total_mb, driver in (row for row in rows if len(row) == 5):
        free, total = (float(text.split()[0]) / 1024 for text in (free_mb, total_mb))
        about = f"{name}, {free:.1f} of {total:.1f} GiB free, driver {driver}"
        if free < FREE_SHARE * total:
            found.append(
                warning(f"GPU {index}", about, f"others use it ({_users(index) or 'not told who'})")
            )
        else:
            found.append(ok(f"GPU {index}", about))
    from nanochat.runtime.world import unusable_gpus

    if problem := unusable_gpus():
        kind = error if needs_gpu else warning
        found.append(kind("torch and GPU", problem))
    elif not found:
        found.append(ok("GPU", told))
    return found


def _no_gpu(needs_gpu: bool, env: Mapping[str, str]) -> Finding:
    if not needs_gpu:
        return ok("GPU", "none: the CPU is used")
    if env.get("SLURM_JOB_ID"):
        fix = "ask for some: sbatch --gpus-per-node=8 or another --partition (`sinfo -o '%P %G'`)"
        return error("GPU", "this job has none", fix)
    if shutil.which("sbatch"):
        return warning("GPU", "none on this machine", "right for a login node: run it in a job too")
    return error("GPU", "none on this machine", "use a machine with one, or --recipe cpu")


def _query(what: str, of: str) -> list[list[str]]:
    text = output_of("nvidia-smi", f"--query-{of}={what}", "--format=csv,noheader,nounits")
    return [[cell.strip() for cell in row] for row in csv.reader((text or "").splitlines())]


def _users(index: str) -> str:
    """`python (pid 7, 1200 MiB)` for each process on a GPU."""
    uuids = {row[0]: row[1] for row in _query("index,uuid", "gpu") if len(row) == 2}
    rows = _query("gpu_uuid,pid,process_name,used_memory", "compute-apps")
    users = [row for row in rows if len(row) == 4 and row[0] == uuids.get(index)]
    return ", ".join(f"{Path(name).name} (pid {pid}, {mb} MiB)" for _, pid, name, mb in users)


def shared_memory(folder: Path = SHARED_MEMORY) -> Finding:
    if not folder.is_dir():
        return warning("shared memory", f"no {folder}", "processes of one node talk through it")
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < ENOUGH_SHARED_BYTES:
        return warning("shared memory", found, "in a container start it with --shm-size=8g")
    return ok("shared memory", found)


def limits() -> Finding:
    """What `ulimit` allows; unlimited is -1 there."""
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    address, cpu_s = (resource.getrlimit(r)[0] for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU))
    found = f"{files} open files" if files != resource.RLIM_INFINITY else "any number of files"
    if address != resource.RLIM_INFINITY:
        return error(
            "ulimit", f"{address / 2**30:.1f} GiB of address space", "`ulimit -v unlimited`"
        )
    if cpu_s != resource.RLIM_INFINITY:
        return warning("ulimit", f"{cpu_s} s of CPU time", "start it as a job (`ulimit -t`)")
    if files != resource.RLIM_INFINITY and files < ENOUGH_FILES:
        return warning("ulimit", found, f"`ulimit -n {ENOUGH_FILES}`")
    return ok("ulimit", found)


def git() -> Finding:
    text = output_of("git", "--version")
    if text is None:
        fix = "install it or load its module: without it no report can name the code's version"
        return warning("git", "is missing", fix)
    return ok("git", text.strip().removeprefix("git version "))


def slurm_step(env: Mapping[str, str]) -> list[Finding]:
    """In a job: whether its processes get the cores and GPUs that it has."""
    if not env.get("SLURM_JOB_ID"):
        return []
    cores, gpus_here = env.get("SLURM_CPUS_ON_NODE", "?"), env.get("SLURM_GPUS_ON_NODE", "0")
    node = env.get("SLURMD_NODENAME", platform.node())
    found = f"{cores} cores and {gpus_here} GPUs on {node}"
    if cores.isdigit() and gpus_here.isdigit() and int(cores) < int(gpus_here):
        return [warning("allocation", found, "less than a core for each GPU: --cpus-per-task=8")]
    return [ok("allocation", found)]
