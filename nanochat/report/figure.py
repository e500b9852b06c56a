"""A picture of a report, as a PNG file. Uses matplotlib's Agg canvas directly: no window, no global
state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Apart for colour-blind eyes too.
BLUE, ORANGE, GREEN, GREY = "#2a6fb0", "#d9772b", "#3c8c4e", "#8a8f98"
BLACK = "#222"
DPI = 130


def new_figure(panels: int, height: float = 3.0, share_x: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with `panels` panels above each other, each `height` inches high, by default over
    the same x.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 0.6 + height * panels), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(panels, 1, sharex=share_x, squeeze=False)[:, 0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(True, color="#00000018")
        axis.set_axisbelow(True)
    return figure, axes


def save(figure: Figure, path: Path) -> Path:
    """Write the picture; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path
