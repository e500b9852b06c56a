"""What the runs of a sweep came to: a table for the terminal, for Markdown and for programs, and a
picture.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.launch.sweep_plan import SweepPlan, SweepRun, number_of, shown
from nanochat.report.blocks import Table, aligned
from nanochat.report.figure import BLUE, GREEN, GREY, ORANGE, new_figure, save
from nanochat.report.markdown import markdown
from nanochat.report.quantities import duration, number
from nanochat.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURED = ("parameters", "tokens", "flops", "train_s", "steps")  # what `x` may be besides settings
COLORS = (BLUE, ORANGE, GREEN, GREY, "#8a4fb0", "#b03a5b")
FEW = 10  # values that all stand on the axis
LOG_FROM = 8.0  # times the smallest value: from here on an axis is logarithmic


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A run and its record, as the report reads it; `{}` where it is not complete."""

    run: SweepRun
    state: str
    record: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """A number of the record, or a setting that is a number."""
        metrics = self.record.get("metrics") or {}
        if name == "flops":
            return training_flops(self.record)
        if name in metrics:
            return number_of(metrics[name])
        settings = {**(self.record.get("config") or {}), **self.run.settings}
        return number_of(settings.get(name))

    def told(self, measure: str) -> str:
        return f"{measure} {number(self.value(measure))}"


def training_flops(record: dict[str, Any]) -> float | None:
    """Work of a whole run, by the model's own count."""
    from nanochat.cost import flops_per_token
    from nanochat.gpt_config import GPTConfig

    settings, tokens = record.get("settings") or {}, (record.get("metrics") or {}).get("tokens")
    if not tokens or "model_config" not in settings:
        return None
    config = GPTConfig(**settings["model_config"])
    return flops_per_token(config, settings["seq_len"]) * tokens


def ordered(plan: SweepPlan, results: Sequence[SweepResult]) -> list[SweepResult]:
    """The best first; what has no number comes last."""
    sign = 1 if plan.goal == "min" else -1

    def place(result: SweepResult) -> float:
        value = result.value(plan.measure) if result.record else None
        return math.inf if value is None else sign * value

    return sorted(results, key=place)


def table(plan: SweepPlan, results: Sequence[SweepResult]) -> Table:
    """One row a run: what varies, what was measured."""
    extra = [plan.x] if plan.x and plan.x not in plan.varied else []
    header = [*plan.varied, plan.measure, *extra, "parameters", "tokens", "time", "state"]
    rows = []
    for result in ordered(plan, results):
        measured = [plan.measure, *extra, "parameters", "tokens"]
        cells = [number(result.value(name) if result.record else None) for name in measured]
        took = duration(result.record.get("wall_s"))
        rows.append([*map(shown, result.run.varied.values()), *cells, took, result.state])
    return Table(list(dict.fromkeys(header)), [_without_twice(header, row) for row in rows])


def _without_twice(header: Sequence[str], row: Sequence[str]) -> list[str]:
    return list(dict(zip(header, row, strict=True)).values())


def sweep_table(plan: SweepPlan, results: Sequence[SweepResult]) -> str:
    """The table with its columns aligned, and what came out."""
    return "\n".join([aligned(table(plan, results)), "", *conclusions(plan, results)]).rstrip()


def conclusions(plan: SweepPlan, results: Sequence[SweepResult]) -> list[str]:
    """The best run, and the power law where the picture is over something measured."""
    best = ordered(plan, results)[0]
    if not best.record or best.value(plan.measure) is None:
        return []
    lines = [f"best: {best.run.name} with {best.told(plan.measure)}"]
    law = power_law(points(plan, results)) if plan.x in MEASURED else None
    if law:
        lines.append(f"power law: {plan.measure} = {law[0]:.4g} * {plan.x}^{law[1]:.4f}")
    return lines


def points(plan: SweepPlan, results: Sequence[SweepResult]) -> list[tuple[float, float]]:
    """(x, measure) of the complete runs."""
    name = plan.x or plan.varied[0]
    found = [(r.value(name), r.value(plan.measure)) for r in results if r.record]
    return sorted((x, y) for x, y in found if x is not None and y is not None)


def power_law(found: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """(a, b) of y = a * x^b, by least squares of the logarithms. None with fewer than three
    different x, or numbers that have no logarithm.
    """
    if len({x for x, _ in found}) < 3 or min(min(x, y) for x, y in found) <= 0:
        return None
    logs = [(math.log(x), math.log(y)) for x, y in found]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum(
        (x - mean_x) ** 2 for x, _ in logs
    )
    return math.exp(mean_y - slope * mean_x), slope


def write_results(plan: SweepPlan, results: Sequence[SweepResult], folder: Path) -> Path:
    """`sweep.md`, `sweep.csv` and `sweep.png` in the folder of the sweep; the first one's path."""
    text = [markdown([table(plan, results)], ""), *conclusions(plan, results)]
    if picture(plan, results, folder / "sweep.png"):
        text.append(f"\n![{plan.measure} of each run](sweep.png)")
    path = folder / "sweep.md"
    atomic_write(path, f"# Sweep {plan.name}\n\n" + "\n".join(text) + "\n")
    file = io.StringIO()
    columns = [*dict.fromkeys([*plan.varied, plan.measure, *MEASURED])]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "state", *columns])
    for result in results:
        measured = {name: result.value(name) if result.record else None for name in columns}
        values = [result.run.varied.get(name, measured[name]) for name in columns]
        writer.writerow([result.run.name, result.state, *values])
    atomic_write(folder / "sweep.csv", file.getvalue())
    return path


def picture(plan: SweepPlan, results: Sequence[SweepResult], path: Path) -> bool:
    """The measure over what varies, one panel for each setting that is a number, or over `x`. With
    a grid of several settings there is a line for each combination of the others. Whether there was
    anything to draw.
    """
    complete = [r for r in results if r.record and r.value(plan.measure) is not None]
    over = [plan.x] if plan.x else [name for name in plan.varied if name != "seed"]
    over = [name for name in over if any(r.value(name) is not None for r in complete)]
    if not complete or not over:
        return False
    figure, axes = new_figure(len(over), 2.6, share_x=False)
    for axis, name in zip(axes, over, strict=True):
        _panel(axis, name, plan, complete)
    axes[0].set_title(f"Sweep {plan.name}: {plan.command}", loc="left")
    save(figure, path)
    return True


def _panel(axis: Axes, name: str, plan: SweepPlan, complete: Sequence[SweepResult]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in complete:
        others = {k: v for k, v in result.run.varied.items() if k not in (name, "seed")}
        x, y = result.value(name), result.value(plan.measure)
        if x is not None and y is not None:
            label = ", ".join(f"{key} {shown(value)}" for key, value in others.items())
            lines.setdefault(label, []).append((x, y))
    found = sorted(point for line in lines.values() for point in line)
    if name in MEASURED or len(lines) > len(COLORS):  # no two of them share their other settings
        lines = {"": found}
    for color, (label, line) in zip(COLORS, lines.items(), strict=False):
        style = "o" if name in MEASURED or len(line) < 2 else "o-"
        at = [x for x, _ in sorted(line)]
        axis.plot(at, [y for _, y in sorted(line)], style, color=color, label=label, markersize=4)
    law = power_law(found) if name in MEASURED else None
    if law:
        ends = [found[0][0], found[-1][0]]
        told = f"{law[0]:.3g} x^{law[1]:.3f}"
        axis.plot(ends, [law[0] * x ** law[1] for x in ends], "--", color=GREY, label=told)
        axis.set_yscale("log")
    if found[0][0] > 0 and found[-1][0] >= LOG_FROM * found[0][0]:
        axis.set_xscale("log")
    places = sorted({x for x, _ in found})
    if name not in MEASURED and len(places) <= FEW:
        axis.set_xticks(places, [f"{x:g}" for x in places])
        axis.minorticks_off()
    axis.set_xlabel(name)
    axis.set_ylabel(plan.measure)
    if len(lines) > 1 or law:
        axis.legend(frameon=False, fontsize=8)
