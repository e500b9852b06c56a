"""The pictures of a report, as PNG files. Uses matplotlib's Agg canvas directly: no window, no
global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.report.document import Image
from nanochat.report.scores import ReportedScore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = (
    "#2a6fb0",
    "#d9772b",
    "#3c8c4e",
    "#8a8f98",
)  # apart for colour-blind eyes too
STAGE_COLORS = {"BASE": GREY, "MID": ORANGE, "SFT": BLUE, "RL": GREEN}
DPI = 130
LOSS = ("train_loss", "loss")
VAL = ("val_bpb", "val/bpb", "bpb")
VAL_LOSS = ("val_loss", "val/loss")
REWARD = ("reward", "reward_mean", "mean_reward")
LENGTH = ("length_tokens", "mean_length_tokens", "length", "sequence_length", "mean_length")
ENTROPY, KL = ("entropy",), ("kl",)
PASS = ("pass@1", "pass_at_1", "eval_pass@1", "val_pass@1")


def series(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[list[float], list[float]]:
    """(steps, values) of the first of `names` that any row has; rows without it are passed over."""
    for name in names:
        points = [
            (row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))
        ]
        if points:
            return [float(x) for x, _ in points], [float(y) for _, y in points]
    return [], []


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


def _figure(panels: int, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 0.6 + height * panels), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#00000018")
        axis.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path


def _line(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    label: str,
    unit: str,
    color: str,
) -> None:
    """One quantity over steps: dots where there are few, a faint line under its smoothed self where
    there are many.
    """
    steps, values = series(rows, names)
    if len(values) > 40:
        window = max(5, len(values) // 20 | 1)
        axis.plot(steps, values, color=color, alpha=0.3, linewidth=0.8, label="each step")
        _cut_outliers(axis, values)
        values = smooth(values, window)
        axis.plot(steps, values, color=color, linewidth=1.8, label=f"smoothed over {window} steps")
        axis.legend(
            frameon=False,
            fontsize=8,
            ncols=2,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0,
        )
    else:
        axis.plot(steps, values, color=color, linewidth=1.5, marker="o", markersize=4)
    at = (steps[-1], values[-1])
    axis.annotate(f"  {values[-1]:.4g}", at, fontsize=8, va="center", annotation_clip=False)
    axis.set_ylabel(f"{label}\n({unit})")


def _cut_outliers(axis: Axes, values: Sequence[float]) -> None:
    """Keep one spike from flattening the rest of the curve: it is drawn to the edge."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[int(0.995 * (len(ordered) - 1))]
    if ordered[-1] > high + 2 * (high - low) > low:
        axis.set_ylim(top=high + 0.15 * (high - low), bottom=low - 0.05 * (high - low))


def training_curves(title: str, rows: Sequence[Mapping[str, Any]], path: Path) -> Image | None:
    """Loss of the training batches and, where measured, of validation. None when no loss was
    logged.
    """
    panels: list[tuple[Sequence[str], str, str, str]] = [
        (LOSS, "Training loss", "nats per token", BLUE),
        (VAL, "Validation", "bits per byte", ORANGE),
        (VAL_LOSS, "Validation loss", "nats per token", ORANGE),
    ]
    return _curves(title, rows, panels, path)


def reward_curves(title: str, rows: Sequence[Mapping[str, Any]], path: Path) -> Image | None:
    """Reward of the rollouts, held-out success and answer length over steps. None when no reward
    was logged.
    """
    if not series(rows, REWARD)[0]:
        return None
    panels: list[tuple[Sequence[str], str, str, str]] = [
        (REWARD, "Mean reward", "0 to 1", GREEN),
        (PASS, "Held-out pass@1", "share right", ORANGE),
        (LENGTH, "Answer length", "tokens", GREY),
        (ENTROPY, "Entropy", "nats per token", BLUE),
        (KL, "KL to the start", "nats per token", GREY),
    ]
    return _curves(title, rows, panels, path)


def _curves(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    panels: Sequence[tuple[Sequence[str], str, str, str]],
    path: Path,
) -> Image | None:
    shown = [panel for panel in panels if series(rows, panel[0])[0]]
    if not shown:
        return None
    figure, axes = _figure(len(shown), 2.3)
    for axis, (names, label, unit, color) in zip(axes, shown, strict=True):
        _line(axis, rows, names, label, unit, color)
    axes[0].set_title(title, loc="left")
    axes[-1].set_xlabel("Step (optimizer updates)")
    told = "; ".join(
        f"{label.lower()} from {y[0]:.3g} to {y[-1]:.3g} {unit}"
        for y, label, unit in _ends(rows, shown)
    )
    return Image(_save(figure, path), f"{title}: {told}")


def _ends(
    rows: Sequence[Mapping[str, Any]], panels: Sequence[tuple[Sequence[str], str, str, str]]
) -> list[tuple[list[float], str, str]]:
    return [(series(rows, names)[1], label, unit) for names, label, unit, _ in panels]


def bars(
    title: str, found: Sequence[ReportedScore], axis_label: str, path: Path, centered: bool = False
) -> Image | None:
    """One horizontal bar per score, its 95% interval where known; `centered` shows 0 as the level
    of guessing.
    """
    if not found:
        return None
    ordered = list(reversed(found))
    values = [s.centered if centered and s.centered is not None else s.value for s in ordered]
    figure, (axis,) = _figure(1, 0.5 + 0.28 * len(ordered))
    axis.barh(
        range(len(ordered)), values, color=[BLUE if v >= 0 else ORANGE for v in values], height=0.65
    )
    for at, (score, value) in enumerate(zip(ordered, values, strict=True)):
        end = value
        if not centered and score.low is not None and score.high is not None:
            axis.plot([score.low, score.high], [at, at], color="#222", linewidth=1.2)
            end = max(value, score.high)
        if not centered and score.baseline:
            axis.plot([score.baseline] * 2, [at - 0.4, at + 0.4], color=ORANGE, linewidth=2)
        axis.annotate(
            f" {value:.3f}", (max(end, 0.0), at), va="center", fontsize=8, annotation_clip=False
        )
    axis.set_ylim(-0.6, len(ordered) - 0.4)
    axis.set_yticks(range(len(ordered)), [s.name.replace("_", " ") for s in ordered], fontsize=8)
    axis.axvline(0, color="#222", linewidth=0.8)
    top = max(
        [*values, *(s.high for s in ordered if not centered and s.high is not None)]
    )  # the ends of all intervals
    axis.set_xlim(min(0.0, *values) * 1.1, 1.0 if top > 0.5 else max(0.1, top * 1.25))
    axis.grid(False, axis="y")
    axis.set_xlabel(axis_label)
    axis.set_title(title, loc="left")
    told = ", ".join(
        f"{s.name} {v:.3f}" for s, v in zip(reversed(ordered), reversed(values), strict=True)
    )
    return Image(_save(figure, path), f"{title}: {told}")


def stages(
    title: str, table: Mapping[str, Mapping[str, ReportedScore]], metrics: Sequence[str], path: Path
) -> Image | None:
    """Each benchmark before and after every stage, with intervals. None unless two stages share a
    metric.
    """
    columns = [column for column in table if any(metric in table[column] for metric in metrics)]
    shown = [m for m in metrics if sum(m in table[c] for c in columns) >= 2]
    if len(columns) < 2 or not shown:
        return None
    figure, (axis,) = _figure(1, 3.2)
    width = 0.8 / len(columns)
    for place, column in enumerate(columns):
        points = [(i, table[column][m]) for i, m in enumerate(shown) if m in table[column]]
        at = [i + (place - (len(columns) - 1) / 2) * width for i, _ in points]
        axis.bar(
            at,
            [s.value for _, s in points],
            width=width * 0.92,
            color=STAGE_COLORS.get(column, GREY),
            label=column,
        )
        for x, (_, score) in zip(at, points, strict=True):
            if score.low is not None and score.high is not None:
                axis.plot([x, x], [score.low, score.high], color="#222", linewidth=1.2)
    many = len(shown) > 6  # more names than stand beside each other
    axis.set_xticks(
        range(len(shown)),
        shown,
        fontsize=9,
        rotation=20 if many else 0,
        ha="right" if many else "center",
    )
    axis.grid(False, axis="x")
    axis.set_ylabel("Share right\n(line: 95% interval)")
    axis.set_title(title, loc="left")
    axis.legend(frameon=False, fontsize=8, ncols=len(columns))
    return Image(_save(figure, path), f"{title}: {', '.join(shown)} after {', '.join(columns)}")
