"""What a run logged, as curves over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.report.blocks import Image
from nanochat.report.figure import BLUE, GREEN, GREY, ORANGE, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]
MANY_POINTS = 40  # from here on a curve is smoothed


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity of the log, and how to show it."""

    name: str
    label: str
    unit: str
    color: str


TRAINING = (
    Curve(name="train_loss", label="Training loss", unit="nats per token", color=BLUE),
    Curve(name="val_bpb", label="Validation", unit="bits per byte", color=ORANGE),
)
REWARD = (
    Curve(name="reward", label="Mean reward", unit="0 to 1", color=GREEN),
    Curve(name="pass@1", label="Held-out pass@1", unit="share right", color=ORANGE),
    Curve(name="length_tokens", label="Answer length", unit="tokens", color=GREY),
    Curve(name="entropy", label="Entropy", unit="nats per token", color=BLUE),
    Curve(name="kl", label="KL to the start", unit="nats per token", color=GREY),
)


def series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of one quantity; rows without it are passed over."""
    points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Mean of the middle half of the `window` points around each point.

    Near the start the window shrinks on both sides, near the end on the right only: the first value
    matters as it was, the last one as a mean. Centred, because a trailing average runs late where a
    loss falls fast; the outer quarters are left out, because one spike would bend the line for a
    whole window.
    """
    half = window // 2
    result = []
    for at in range(len(values)):
        reach = min(half, at)
        near = sorted(values[at - reach : at + reach + 1])
        middle = near[len(near) // 4 : len(near) - len(near) // 4]
        result.append(sum(middle) / len(middle))
    return result


def run_curves(title: str, rows: Rows, curves: Sequence[Curve], path: Path) -> Image | None:
    """Those of the curves that were logged, above each other. None when the first one was not."""
    shown = [(curve, *series(rows, curve.name)) for curve in curves]
    if not shown[0][1]:
        return None
    shown = [each for each in shown if each[1]]
    figure, axes = new_figure(len(shown), 2.3)
    told = []
    for axis, (curve, steps, values) in zip(axes, shown, strict=True):
        _line(axis, curve, steps, values)
        told.append(f"{curve.label.lower()} from {values[0]:.3g} to {values[-1]:.3g} {curve.unit}")
    axes[0].set_title(title, loc="left")
    axes[-1].set_xlabel("Step (optimizer updates)")
    return Image(save(figure, path), f"{title}: {'; '.join(told)}")


def _line(axis: Axes, curve: Curve, steps: list[float], values: list[float]) -> None:
    """One quantity over steps: dots where there are few, a faint line under its smoothed self where
    there are many.
    """
    if len(values) > MANY_POINTS:
        window = max(5, len(values) // 20 | 1)
        axis.plot(steps, values, color=curve.color, alpha=0.3, linewidth=0.8, label="each step")
        _cut_outliers(axis, values)
        values = smooth(values, window)
        label = f"smoothed over {window} steps"
        axis.plot(steps, values, color=curve.color, linewidth=1.8, label=label)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, ncols=2)
    else:
        axis.plot(steps, values, color=curve.color, linewidth=1.5, marker="o", markersize=4)
    at = (steps[-1], values[-1])
    axis.annotate(f"  {values[-1]:.4g}", at, fontsize=8, va="center", annotation_clip=False)
    axis.set_ylabel(f"{curve.label}\n({curve.unit})")


def _cut_outliers(axis: Axes, values: Sequence[float]) -> None:
    """Keep one spike from flattening the rest of the curve: it is drawn to the edge."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[int(0.995 * (len(ordered) - 1))]
    if ordered[-1] > high + 2 * (high - low) > low:
        axis.set_ylim(top=high + 0.15 * (high - low), bottom=low - 0.05 * (high - low))
