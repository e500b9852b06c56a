"""`nanochat cost`: hours of each stage times the rate, beside what the plan said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nanochat.report.blocks import aligned
from nanochat.report.machine_hours import basis, cost_table, stage_costs
from nanochat.report.stage_records import read_records
from nanochat.runtime.records import report_dir


@dataclass
class CostConfig:
    """Time and money of the stages that have been run under this base directory."""

    hourly_rate: float | None = None
    """US dollars for an hour of the whole machine; without it, rough prices of common GPUs, and
    nothing for a CPU.
    """

    def problems(self) -> list[str]:
        rate = self.hourly_rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            return [f"--hourly-rate={rate}: give US dollars for an hour, 0 or more"]
        return []


def show_cost(cfg: CostConfig) -> str:
    """The table to print. Raises ValueError where nothing has been run yet."""
    costs = stage_costs(read_records(), cfg.hourly_rate)
    if not costs:
        raise ValueError(
            f"{report_dir()}: no stage has left a record there yet; run one, or set "
            "NANOCHAT_BASE_DIR to where it was run"
        )
    return f"{aligned(cost_table(costs))}\n\n{basis(costs, cfg.hourly_rate)}"
