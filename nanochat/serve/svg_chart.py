"""Bar charts as SVG, made on the server: nothing is drawn by scripts, and a reader without pictures
gets a table beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 200
LEFT, BOTTOM, TOP = 56, 24, 10
MOST_LABELS = 8


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One column: what stands under it, and its parts from the ground up."""

    label: str
    parts: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.parts)


def bar_chart(bars: Sequence[Bar], title: str, part_names: Sequence[str]) -> str:
    """An <svg> element; parts have the classes part0, part1, ... Empty without bars."""
    if not bars:
        return ""
    top = nice_top(max(bar.total for bar in bars))
    room_x, room_y = WIDTH - LEFT, HEIGHT - BOTTOM - TOP
    step = room_x / len(bars)
    drawn = []
    for line in range(5):
        value = top * line / 4
        y = HEIGHT - BOTTOM - room_y * line / 4
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        drawn.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    every = -(-len(bars) // MOST_LABELS)
    for number, bar in enumerate(bars):
        x = LEFT + step * number + step * 0.15
        y = float(HEIGHT - BOTTOM)
        for part, value in enumerate(bar.parts):
            height = room_y * value / top
            y -= height
            said = escape(f"{bar.label}: {short(value)} {part_names[part]}")
            drawn.append(
                f'<rect class="part{part}" x="{x:.1f}" y="{y:.1f}" width="{step * 0.7:.1f}" '
                f'height="{height:.1f}"><title>{said}</title></rect>'
            )
        if number % every == 0:
            middle = x + step * 0.35
            drawn.append(
                f'<text x="{middle:.1f}" y="{HEIGHT - 7}" text-anchor="middle">'
                f"{escape(bar.label)}</text>"
            )
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}">{"".join(drawn)}</svg>'
    )


def nice_top(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten: every quarter of it is a plain number."""
    if value <= 0:
        return 4.0
    power = 10.0 ** (len(str(int(value))) - 1)
    return next((m * power for m in (1, 2, 4, 8, 10) if m * power >= value), 10 * power)


def short(value: float) -> str:
    """12345 as 12.3k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
