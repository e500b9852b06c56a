"""Scores as bars with their intervals: one evaluation, or every stage beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nanochat.report.blocks import Image
from nanochat.report.figure import BLACK, BLUE, GREEN, GREY, ORANGE, new_figure, save
from nanochat.report.scores import ReportedScore, Scores

STAGE_COLORS = {"BASE": GREY, "MID": ORANGE, "SFT": BLUE, "RL": GREEN}


def score_bars(
    title: str, found: Sequence[ReportedScore], axis_label: str, path: Path, centered: bool = False
) -> Image | None:
    """One horizontal bar per score, its 95% interval where known; `centered` shows 0 as the level
    of guessing.
    """
    if not found:
        return None
    ordered = list(reversed(found))
    values = [s.centered if centered and s.centered is not None else s.value for s in ordered]
    figure, (axis,) = new_figure(1, 0.5 + 0.28 * len(ordered))
    colors = [BLUE if value >= 0 else ORANGE for value in values]
    axis.barh(range(len(ordered)), values, color=colors, height=0.65)
    ends = []
    for at, (score, value) in enumerate(zip(ordered, values, strict=True)):
        end = value
        if not centered and score.low is not None and score.high is not None:
            axis.plot([score.low, score.high], [at, at], color=BLACK, linewidth=1.2)
            end = max(value, score.high)
        if not centered and score.baseline:
            axis.plot([score.baseline] * 2, [at - 0.4, at + 0.4], color=ORANGE, linewidth=2)
        place = (max(end, 0.0), at)
        axis.annotate(f" {value:.3f}", place, va="center", fontsize=8, annotation_clip=False)
        ends.append(end)
    axis.set_ylim(-0.6, len(ordered) - 0.4)
    axis.set_yticks(range(len(ordered)), [s.name.replace("_", " ") for s in ordered], fontsize=8)
    axis.axvline(0, color=BLACK, linewidth=0.8)
    top = max(ends)
    axis.set_xlim(min(0.0, *values) * 1.1, 1.0 if top > 0.5 else max(0.1, top * 1.25))
    axis.grid(False, axis="y")
    axis.set_xlabel(axis_label)
    axis.set_title(title, loc="left")
    told = [f"{s.name} {v:.3f}" for s, v in zip(ordered, values, strict=True)]
    return Image(save(figure, path), f"{title}: {', '.join(reversed(told))}")


def stage_bars(
    title: str, table: Mapping[str, Scores], metrics: Sequence[str], path: Path
) -> Image | None:
    """Each benchmark before and after every stage, with intervals. None unless two stages share a
    metric.
    """
    columns = [column for column in table if any(metric in table[column] for metric in metrics)]
    shown = [m for m in metrics if sum(m in table[c] for c in columns) >= 2]
    if len(columns) < 2 or not shown:
        return None
    figure, (axis,) = new_figure(1, 3.2)
    width = 0.8 / len(columns)
    for place, column in enumerate(columns):
        shift = (place - (len(columns) - 1) / 2) * width
        points = [(i + shift, table[column][m]) for i, m in enumerate(shown) if m in table[column]]
        at, values = [x for x, _ in points], [score.value for _, score in points]
        axis.bar(at, values, width=width * 0.92, color=STAGE_COLORS[column], label=column)
        for x, score in points:
            if score.low is not None and score.high is not None:
                axis.plot([x, x], [score.low, score.high], color=BLACK, linewidth=1.2)
    many = len(shown) > 6  # more names than stand beside each other
    axis.set_xticks(range(len(shown)), shown, fontsize=9, rotation=20 if many else 0)
    axis.grid(False, axis="x")
    axis.set_ylabel("Share right\n(line: 95% interval)")
    axis.set_title(title, loc="left")
    axis.legend(frameon=False, fontsize=8, ncols=len(columns))
    return Image(save(figure, path), f"{title}: {', '.join(shown)} after {', '.join(columns)}")
