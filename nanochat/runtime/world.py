"""The processes of a run: one, several started by torchrun, or several started by SLURM's srun.

Code written against `World` is the same on one CPU as on eight GPUs: with one process every
collective returns at once. Nothing here is global; `World` is passed to whoever needs it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from nanochat.runtime.allocated_gpus import allocated_gpus
from nanochat.runtime.errors import reason
from nanochat.runtime.machine import core_count
from nanochat.runtime.slurm_nodes import expand_nodelist, node_address
from nanochat.runtime.variables import read_variable


@dataclass
class Pending:
    """A tensor that a collective under way is filling; `wait` returns it when it is there."""

    tensor: torch.Tensor
    work: Any = None
    keep: torch.Tensor | None = None  # what is being sent must outlive the collective

    def wait(self) -> torch.Tensor:
        if self.work is not None:
            self.work.wait()
            self.work = self.keep = None
        return self.tensor


@dataclass
class World:
    """This process among its peers. `backend` is None for a single process."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    backend: str | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place; returns the tensor."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

    def reduce_scatter_sum(self, tensor: torch.Tensor) -> Pending:
        """(world_size * n, ...) -> this rank's n rows of the sum over ranks. `tensor` may be
        overwritten.
        """
        if self.world_size == 1:
            return Pending(tensor)
        n_rows = tensor.size(0) // self.world_size
        own = torch.empty_like(tensor[:n_rows])
        scatter = (
            getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        )  # renamed in torch 2.13
        try:
            return Pending(own, scatter(own, tensor, async_op=True), tensor)
        except (
            RuntimeError,
            NotImplementedError,
        ):  # back ends without it: twice the traffic, the same numbers
            work = dist.all_reduce(tensor, async_op=True)
            return Pending(tensor[self.rank * n_rows : (self.rank + 1) * n_rows], work)

    def all_gather(self, own: torch.Tensor, into: torch.Tensor | None = None) -> Pending:
        """Every rank's (n, ...) -> (world_size * n, ...) in rank order, written to `into` when
        given.
        """
        if self.world_size == 1:
            return Pending(own if into is None else into.copy_(own))
        if into is None:
            into = own.new_empty(self.world_size * own.size(0), *own.shape[1:])
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        return Pending(into, gather(into, own, async_op=True), own)

    def all_to_all(self, tensor: torch.Tensor) -> Pending:
        """(world_size * n, ...), n rows for each rank -> (world_size * n, ...), the n rows from
        each rank.
        """
        if self.world_size == 1:
            return Pending(tensor)
        into = torch.empty_like(tensor)
        return Pending(into, dist.all_to_all_single(into, tensor, async_op=True), tensor)

    def broadcast_object(self, obj: Any) -> Any:
        """Rank 0's object on every rank."""
        if self.world_size == 1:
            return obj
        box = [obj if self.is_main else None]
        dist.broadcast_object_list(
            box, src=0, device=self.device if self.backend == "nccl" else None
        )
        return box[0]

    def gather_objects(self, obj: Any) -> list[Any]:
        """Every rank's object on every rank, in rank order."""
        if self.world_size == 1:
            return [obj]
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, obj)
        return box

    def close(self) -> None:
        """Leave the process group. Safe to call twice."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


@dataclass(kw_only=True)
class Launch:
    """What the launcher said about this process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    by: str = "one process"


def init_world(device_type: str | None = None) -> World:
    """Join the run this process was started for, on `cuda`, `cpu` or `mps` (None or "": the best
    there is).

    Raises ValueError when the device is absent, the launcher's variables are incomplete or the
    peers cannot be reached within `NANOCHAT_DIST_TIMEOUT_S` (default 600 seconds).
    """
    launch = read_launch(os.environ)
    device = pick_device(device_type, launch)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if device.type == "cpu":
        set_cpu_threads(launch)
    if launch.world_size == 1:
        return World(0, 0, 1, device, None)
    if device.type == "mps":
        raise ValueError("--device-type=mps: runs as a single process; start without torchrun")
    backend = "nccl" if device.type == "cuda" else "gloo"
    join_process_group(launch, backend, device)
    return World(launch.rank, launch.local_rank, launch.world_size, device, backend)


def join_process_group(launch: Launch, backend: str, device: torch.device) -> None:
    timeout_s = read_variable("NANOCHAT_DIST_TIMEOUT_S", 600.0)
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        dist.init_process_group(
            backend,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timedelta(seconds=timeout_s),
            device_id=device if backend == "nccl" else None,
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"rank {launch.rank} of {launch.world_size} ({launch.by}) could not join {address} "
            "within "
            f"{timeout_s:.0f} s ({reason(error)}); check that all "
            f"{launch.world_size} processes "
            "were started and that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error


def read_launch(env: Mapping[str, str]) -> Launch:
    """torchrun's or SLURM's variables; for SLURM fills in MASTER_ADDR and MASTER_PORT in
    `os.environ` when unset.
    """
    if "RANK" in env and "WORLD_SIZE" in env:
        world_size = count(env, "WORLD_SIZE")
        launch = Launch(
            rank=count(env, "RANK"),
            local_rank=count(env, "LOCAL_RANK", 0),
            world_size=world_size,
            local_world_size=count(env, "LOCAL_WORLD_SIZE", world_size),
            by="torchrun",
        )
        if launch.rank >= launch.world_size:
            raise ValueError(
                f"RANK={launch.rank}: must be below WORLD_SIZE={launch.world_size}; use torchrun, "
                "or unset both for a single process"
            )
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]
        if launch.world_size > 1 and missing:
            raise ValueError(
                f"{' and '.join(missing)} not set though WORLD_SIZE={launch.world_size}; use "
                "torchrun"
            )
        return launch
    tasks = count(env, "SLURM_STEP_NUM_TASKS", count(env, "SLURM_NTASKS", 1))
    if tasks > 1 and "SLURM_PROCID" in env:
        if "SLURM_JOB_ID" in env and "SLURM_STEP_ID" not in env:
            # The batch script itself also carries SLURM_PROCID=0: waiting for peers there would
            # hang until the timeout.
            print(
                "warning: inside a SLURM job but not under srun: running as a single process",
                file=sys.stderr,
            )
            return Launch()
        return slurm_launch(env, tasks)
    return Launch()


def slurm_launch(env: Mapping[str, str], tasks: int) -> Launch:
    hosts = expand_nodelist(
        env.get("SLURM_STEP_NODELIST")
        or env.get("SLURM_JOB_NODELIST")
        or env.get("SLURM_NODELIST", "")
    )
    if "MASTER_ADDR" not in env and not hosts:
        raise ValueError(
            "SLURM_JOB_NODELIST is not set, so rank 0 cannot be found; set MASTER_ADDR to its "
            "host name"
        )
    if "MASTER_ADDR" not in env:
        os.environ["MASTER_ADDR"] = meeting_place(hosts)
    # Jobs that share a node must not share a port; the job number tells them apart.
    os.environ.setdefault("MASTER_PORT", str(20000 + count(env, "SLURM_JOB_ID", 0) % 20000))
    local = re.match(
        r"\d+",
        env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_NTASKS_PER_NODE") or str(tasks),
    )
    here = int(local.group()) if local else tasks
    return Launch(
        rank=count(env, "SLURM_PROCID"),
        local_rank=count(env, "SLURM_LOCALID", 0),
        world_size=tasks,
        local_world_size=here,
        by="SLURM",
    )


def meeting_place(hosts: list[str]) -> str:
    """An address of rank 0's node. SLURM's name of a node need not be one that the network knows;
    on one node no name is needed.
    """
    return "127.0.0.1" if len(hosts) == 1 else node_address(hosts[0]) or hosts[0]


def count(env: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The whole number in a launcher's variable. Raises ValueError."""
    value = env.get(name, "")
    if default is not None and not value:
        return default
    if not (value.isascii() and value.isdigit()):
        raise ValueError(
            f"{name}={value}: must be a whole number; torchrun and srun set it, or unset it for "
            "a single process"
        )
    return int(value)


def pick_device(device_type: str | None, launch: Launch) -> torch.device:
    """The torch device of this process. Raises ValueError when the named kind is not there, and
    when none is named and there are GPUs that torch cannot use.
    """
    has_mps = torch.backends.mps.is_available()
    if not device_type:
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        if device_type == "cpu" and has_mps and launch.world_size == 1:
            device_type = "mps"
        if device_type == "cpu" and (problem := unusable_gpus()):
            raise ValueError(f"{problem}, or give --device-type=cpu to use the CPU all the same")
    if device_type not in ("cuda", "cpu", "mps"):
        raise ValueError(f"--device-type={device_type}: unknown device; use cuda, cpu or mps")
    if device_type == "mps" and not has_mps:
        raise ValueError("--device-type=mps: this machine has no MPS device; use --device-type=cpu")
    if device_type != "cuda":
        return torch.device(device_type)
    if not torch.cuda.is_available():
        raise ValueError(f"--device-type=cuda: {no_cuda()}, or use --device-type=cpu")
    return torch.device("cuda", gpu_index(launch, torch.cuda.device_count(), os.environ))


def gpu_index(launch: Launch, n_visible: int, env: Mapping[str, str]) -> int:
    """Which of the visible GPUs is this process's: SLURM may show each task its own alone, which
    then is number 0. Raises ValueError when there is none for it.
    """
    if one_each(launch, n_visible, env):
        return 0
    if launch.local_rank < n_visible:
        return launch.local_rank
    raise ValueError(
        f"local rank {launch.local_rank} has no GPU: {n_visible} here for "
        f"{launch.local_world_size} processes; lower --nproc_per_node"
    )


def one_each(launch: Launch, n_visible: int, env: Mapping[str, str]) -> bool:
    """Whether one GPU is seen because the others of this node belong to the other tasks."""
    if launch.by != "SLURM" or n_visible != 1:
        return False
    if env.get("SLURM_GPUS_PER_TASK") or env.get("SLURM_NTASKS_PER_GPU") == "1":
        return True
    here = env.get("SLURM_GPUS_ON_NODE", "")
    return here.isdigit() and int(here) >= launch.local_world_size


def unusable_gpus() -> str | None:
    """Why the GPUs that this process was given cannot be used, with the fix; None where there are
    none or where they can be used.
    """
    if torch.cuda.is_available():
        return None
    told = allocated_gpus(os.environ)
    return f"GPUs are there ({told}), but {no_cuda()}" if told else None


def no_cuda() -> str:
    """Why torch has no GPU, and what to do."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({torch.__version__}) is a build for CPUs; install the CUDA build with "
            "`NANOCHAT_EXTRAS=gpu bash scripts/setup_environment.sh`"
        )
    return (
        f"torch {torch.__version__} sees none; compare `nvidia-smi`: its driver must be for CUDA "
        f"{torch.version.cuda} or newer, and the job must ask for GPUs"
    )


def set_cpu_threads(launch: Launch) -> None:
    """All cores for a CPU run, shared out between local ranks; `OMP_NUM_THREADS` is honoured, and 1
    on many is said.
    """
    wanted, cores = os.environ.get("OMP_NUM_THREADS", ""), core_count()
    if not wanted:
        torch.set_num_threads(max(1, cores // launch.local_world_size))
    elif wanted == "1" and cores > 1 and launch.local_world_size == 1:
        print(
            f"warning: OMP_NUM_THREADS=1 holds this CPU run to one of {cores} cores; unset it to "
            "use them all",
            file=sys.stderr,
        )
