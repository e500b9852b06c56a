"""What a run cost: hours of the machine times its hourly rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.runtime.chips import gpu_rate


@dataclass(frozen=True)
class StageCost:
    """Time and money of one section. `usd` None: the price of its hardware is not known."""

    section: str
    wall_s: float
    hardware: str
    gpus: int
    usd: float | None


def wall_seconds(record: Mapping[str, Any]) -> float | None:
    """How long the work of a record took; None when it does not say."""
    for value in (
        record.get("wall_s"),
        record.get("metrics", {}).get("wall_s") if _has_metrics(record) else None,
    ):
        if isinstance(value, (int, float)):
            return float(value)
    started, finished = record.get("started"), record.get("finished")
    if (
        isinstance(started, (int, float))
        and isinstance(finished, (int, float))
        and finished >= started
    ):
        return float(finished - started)
    training = record.get("training")
    if isinstance(training, Mapping) and isinstance(training.get("train_time_s"), (int, float)):
        return float(training["train_time_s"])
    return None


def _has_metrics(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("metrics"), Mapping)


def stage_cost(
    section: str, record: Mapping[str, Any], hourly_rate: float | None
) -> StageCost | None:
    """Time and money of one record; None when it does not say how long it took.

    `hourly_rate`: US dollars for an hour of the whole machine. Without it GPUs are priced by the
    table and a machine without GPUs at nothing.
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
    return StageCost(
        section, wall_s, hardware, gpus, None if rate is None else wall_s / 3600 * rate
    )
