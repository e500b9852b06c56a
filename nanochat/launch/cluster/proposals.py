"""What a cluster offers and what is sensible to take, read from SLURM and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nanochat.launch.cluster.settings import ClusterSettings, seconds
from nanochat.runtime.programs import output_of

DAY_SHARE = "12:00:00"  # enough for d20 on eight GPUs; shorter limits wait less
SCRATCH = ("SCRATCH", "WORK", "PROJECT")  # variables that name large disks, by cluster


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A row of `sinfo`: one kind of node in one partition. `time`: its limit as SLURM writes it."""

    name: str
    default: bool
    time: str
    nodes: int
    cpus: int
    memory_mb: int
    gpus: int
    gpu_type: str
    features: str

    def __str__(self) -> str:
        gpus = f"{self.gpus} {self.gpu_type or 'GPUs'}".strip() if self.gpus else "no GPUs"
        star = " (default)" if self.default else ""
        return (
            f"{self.name}{star}: {self.nodes} node(s) of {self.cpus} cores, "
            f"{self.memory_mb / 1024:.0f} GiB, {gpus}, at most {self.time}"
        )


def read_partitions(text: str) -> list[Partition]:
    """The rows of `sinfo -h -o '%P|%a|%l|%D|%c|%m|%G|%f'`, of partitions that are up."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 8 or parts[1] != "up":
            continue
        name, _, time, nodes, cpus, memory, gres, features = parts
        gpus = re.findall(r"gpu(?::([A-Za-z][^:(,]*))?:(\d+)", gres)
        found.append(
            Partition(
                name=name.rstrip("*"),
                default=name.endswith("*"),
                time=time,
                nodes=int(nodes),
                cpus=_number(cpus),
                memory_mb=_number(memory),
                gpus=sum(int(count) for _, count in gpus),
                gpu_type=gpus[0][0] if gpus else "",
                features="" if features == "(null)" else features,
            )
        )
    return found


def _number(text: str) -> int:
    """`64`, or the least of `32+`."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What there is to choose from."""

    partitions: list[Partition]
    accounts: list[str]
    qos: list[str]


def read_offer(user: str) -> Offer:
    """Raises ValueError where there is no SLURM, or where it does not answer."""
    text = output_of("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G|%f")
    if text is None:
        raise ValueError(
            "cluster init: `sinfo` is not here or does not answer; run it on a login node of the "
            "cluster, or copy .env.local.example to cluster.env and fill it in"
        )
    partitions = read_partitions(text)
    if not partitions:
        raise ValueError("cluster init: `sinfo` shows no partition that is up; ask your cluster's")
    rows = output_of("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,qos")
    accounts: list[str] = []
    qos: list[str] = []
    for row in (rows or "").splitlines():
        account, _, allowed = row.partition("|")
        accounts += [account] if account and account not in accounts else []
        qos += [name for name in allowed.split(",") if name and name not in qos]
    return Offer(partitions=partitions, accounts=accounts, qos=qos)


def propose(offer: Offer, known: ClusterSettings, env: Mapping[str, str]) -> ClusterSettings:
    """What is known already; for the rest the partition with most GPUs, time within its limit, the
    only account, a folder on scratch.
    """
    names = [partition.name for partition in offer.partitions]
    best = max(offer.partitions, key=lambda p: (p.gpus, p.default, p.nodes))
    if known.partition in names:
        best = offer.partitions[names.index(known.partition)]
    only = offer.accounts[0] if len(offer.accounts) == 1 else ""
    values = dict(vars(known))
    values["partition"] = best.name
    values["account"] = known.account or only
    values["time"] = known.time or time_within(best.time)
    values["nodes"] = known.nodes or "1"
    values["modules"] = known.modules or env.get("LOADEDMODULES", "").replace(":", " ")
    values["base_dir"] = known.base_dir or scratch_folder(env)
    values["email"] = known.email or (output_of("git", "config", "user.email") or "").strip()
    values["wandb_mode"] = known.wandb_mode or "offline"
    values["device_type"] = known.device_type or ("cuda" if best.gpus else "cpu")
    return ClusterSettings(**values)


def time_within(limit: str) -> str:
    """Twelve hours, or the partition's limit where that is shorter."""
    limit_s = seconds(limit)
    enough = seconds(DAY_SHARE)
    assert enough is not None
    return DAY_SHARE if limit_s is None or limit_s >= enough else limit


def scratch_folder(env: Mapping[str, str]) -> str:
    """A folder on the cluster's large disk; empty where none is found."""
    user = env.get("USER") or Path(env.get("HOME", "")).name
    places = [env[name] for name in SCRATCH if env.get(name)]
    places += [f"/scratch/{user}", f"/work/{user}"]
    found = next((place for place in places if os.access(place, os.W_OK)), "")
    return f"{found.rstrip('/')}/nanochat" if found else ""
