"""What a run cost, hours of the machine times its hourly rate, and what machine it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.cost import flops_per_token
from nanochat.gpt_config import GPTConfig
from nanochat.report.blocks import Block, Heading, Table, Text
from nanochat.report.quantities import duration, row
from nanochat.report.scores import Records
from nanochat.report.stage_section import TITLES
from nanochat.runtime.chips import find_chip, gpu_rate


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Time and money of one section. `usd` None: the price of its hardware is not known.
    `planned_s`: of the steps alone, as `nanochat plan` counts them; None where the speed of the
    hardware is not known, or the section has no steps.
    """

    section: str
    wall_s: float
    hardware: str
    gpus: int
    usd: float | None
    planned_s: float | None = None


def stage_cost(
    section: str, record: Mapping[str, Any], hourly_rate: float | None
) -> StageCost | None:
    """Time and money of one record; None when it does not say how long it took.

    `hourly_rate`: US dollars for an hour of the whole machine. Without it GPUs are priced by the
    table and a machine without GPUs at nothing.
    """
    wall_s = record.get("wall_s")
    if wall_s is None:
        return None
    machine = record.get("environment") or {}
    names = [str(name) for name in machine.get("gpus") or []]
    on_gpu = bool(names) and str(record.get("device") or "cuda").startswith("cuda")
    gpus = min(int(record.get("world_size") or 1), len(names)) if on_gpu else 0
    rate = hourly_rate
    if rate is None:
        single = gpu_rate(names[0]) if on_gpu else 0.0
        rate = None if single is None else single * max(gpus, 1)
    return StageCost(
        section=section,
        wall_s=float(wall_s),
        hardware=f"{gpus} x {names[0]}" if on_gpu else str(machine.get("cpu") or "CPU"),
        gpus=gpus,
        usd=None if rate is None else wall_s / 3600 * rate,
        planned_s=planned_s(record, names[0], gpus) if on_gpu else None,
    )


def planned_s(record: Mapping[str, Any], gpu: str, gpus: int) -> float | None:
    """Seconds that the steps of a training take by arithmetic, at the share of the peak that plans
    count on.
    """
    settings, chip = record.get("settings") or {}, find_chip(gpu)
    if chip is None or not chip.tflops or not settings.get("n_steps"):
        return None
    if not settings.get("total_batch_size"):  # rollouts: the length of answers decides
        return None
    config = GPTConfig.from_checkpoint(settings["model_config"], {})
    tokens = settings["total_batch_size"] * settings["n_steps"]
    work = flops_per_token(config, settings["seq_len"]) * tokens
    return work / (chip.tflops * 1e12 * chip.mfu * max(gpus, 1))


def stage_costs(records: Records, hourly_rate: float | None) -> list[StageCost]:
    """Of each record that says how long it took."""
    return [c for name, record in records.items() if (c := stage_cost(name, record, hourly_rate))]


def cost(records: Records, hourly_rate: float | None) -> list[Block]:
    """Time and money of each stage, and the sum."""
    costs = stage_costs(records, hourly_rate)
    if not costs:
        return []
    return [Heading(2, "Time and cost"), cost_table(costs), Text(basis(costs, hourly_rate))]


def cost_table(costs: Sequence[StageCost]) -> Table:
    """One row a section and one for all; the plan's time beside the real one where it is known."""
    known = [c.usd for c in costs if c.usd is not None]
    total = sum(known) if len(known) == len(costs) else None
    rows = [
        [TITLES[c.section], c.hardware, duration(c.wall_s), duration(c.planned_s), _usd(c.usd)]
        for c in costs
    ]
    plans = [c.planned_s for c in costs if c.planned_s is not None]
    planned = sum(plans) if plans else None
    took = duration(sum(c.wall_s for c in costs))
    rows.append(["Together", "", took, duration(planned), _usd(total)])
    header = ["Stage", "Hardware", "Time", "Planned", "Cost"]
    if planned is None:
        return Table([*header[:3], header[4]], [[*row[:3], row[4]] for row in rows])
    return Table(header, rows)


def basis(costs: Sequence[StageCost], hourly_rate: float | None) -> str:
    """What the money was counted by."""
    if hourly_rate is not None:
        told = f"At ${hourly_rate:g} for an hour of the machine (--hourly-rate)."
    elif any(c.gpus for c in costs):
        told = "At rough public prices of these GPUs (--hourly-rate takes the real price)."
    else:
        told = "A machine without GPUs counts as free (--hourly-rate takes its price)."
    if any(c.planned_s for c in costs):
        told += " Planned: the training steps alone, as `nanochat plan` counts them."
    return told


def _usd(value: float | None) -> str:
    return "-" if value is None else f"${value:,.2f}"


def environment(records: Records) -> list[Block]:
    """The machine and versions of the newest record; how many others there were, if the records
    differ.
    """
    known = sorted(
        (r for r in records.values() if r.get("environment")), key=lambda r: r.get("written") or 0
    )
    if not known:
        return []
    newest = known[-1]["environment"]
    rows = [row(key, value) for key, value in newest.items() if value not in (None, "", [])]
    blocks: list[Block] = [Heading(2, "Environment"), Table(["", ""], rows, numeric=False)]
    compared = ("hostname", "torch", "python", "cpu", "gpus", "git_commit")
    kinds = {str([r["environment"].get(k) for k in compared]) for r in known}
    if len(kinds) > 1:
        blocks.append(
            Text(f"The stages ran in {len(kinds)} different environments; this is the newest.")
        )
    return blocks
