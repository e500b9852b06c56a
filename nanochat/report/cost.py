"""What a run cost: hours of the machine times its hourly rate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# US dollars for one GPU-hour, rounded from the public on-demand prices of several clouds in 2025: a first idea only,
# --hourly-rate gives the real price. The first name that a GPU's name contains counts, so longer ones come first.
GPU_HOUR_USD = (
    ("RTX PRO 6000", 1.9),
    ("RTX 6000 Ada", 0.8),
    ("RTX A6000", 0.5),
    ("A100-SXM4-80GB", 1.8),
    ("A100 80GB", 1.8),
    ("MI300X", 2.5),
    ("GH200", 1.5),
    ("GB200", 6.0),
    ("B200", 5.0),
    ("H200", 3.5),
    ("H100", 3.0),
    ("H20", 1.5),
    ("A100", 1.3),
    ("L40S", 1.0),
    ("L40", 0.9),
    ("A40", 0.5),
    ("A10", 0.7),
    ("L4", 0.7),
    ("V100", 0.6),
    ("T4", 0.4),
    ("5090", 0.7),
    ("4090", 0.4),
    ("3090", 0.25),
)


@dataclass(frozen=True)
class StageCost:
    """Time and money of one section. `usd` None: the price of its hardware is not known."""

    section: str
    wall_s: float
    hardware: str
    gpus: int
    usd: float | None


def gpu_rate(name: str) -> float | None:
    """Rough US dollars for an hour of the named GPU, None when it is not in the table."""
    for part, price in GPU_HOUR_USD:
        if re.search(rf"(?<![a-z0-9]){re.escape(part)}(?![0-9])", name, re.IGNORECASE):
            return price
    return None


def wall_seconds(record: Mapping[str, Any]) -> float | None:
    """How long the work of a record took; None when it does not say."""
    for value in (record.get("wall_s"), record.get("metrics", {}).get("wall_s") if _has_metrics(record) else None):
        if isinstance(value, (int, float)):
            return float(value)
    started, finished = record.get("started"), record.get("finished")
    if isinstance(started, (int, float)) and isinstance(finished, (int, float)) and finished >= started:
        return float(finished - started)
    training = record.get("training")
    if isinstance(training, Mapping) and isinstance(training.get("train_time_s"), (int, float)):
        return float(training["train_time_s"])
    return None


def _has_metrics(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("metrics"), Mapping)


def stage_cost(section: str, record: Mapping[str, Any], hourly_rate: float | None) -> StageCost | None:
    """Time and money of one record; None when it does not say how long it took.

    `hourly_rate`: US dollars for an hour of the whole machine. Without it GPUs are priced by the table and a machine
    without GPUs at nothing.
    """
    wall_s = wall_seconds(record)
    if wall_s is None:
        return None
    environment = record.get("environment") or {}
    names = [str(name) for name in environment.get("gpus") or []]
    on_gpu = bool(names) and str(record.get("device") or "cuda").startswith(("cuda", "gpu"))
    gpus = min(int(record.get("world_size") or 1), len(names)) if on_gpu else 0
    hardware = f"{gpus} x {names[0]}" if on_gpu else str(environment.get("cpu") or "CPU")
    rate: float | None = hourly_rate
    if rate is None:
        single = gpu_rate(names[0]) if on_gpu else 0.0
        rate = None if single is None else single * max(gpus, 1)
    return StageCost(section, wall_s, hardware, gpus, None if rate is None else wall_s / 3600 * rate)
