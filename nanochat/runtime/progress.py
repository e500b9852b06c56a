"""Progress of a long loop on stderr: a bar with time left on a terminal, a plain line every few
seconds otherwise.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from nanochat.runtime.printable import printable


class Progress:
    """Use as a context manager; `advance` after each unit of work, with values to show beside the
    bar.

    total: units of work. every_s: least time between plain lines. enabled False shows nothing
    (ranks other than 0).
    """

    def __init__(
        self,
        total: int,
        description: str,
        every_s: float = 5.0,
        enabled: bool = True,
        stream: TextIO | None = None,
    ):
        self.total = total
        self.description = printable(description)
        self.every_s = every_s
        self.enabled = enabled
        self.stream = stream if stream is not None else sys.stderr
        self.done = self._told = 0
        self._started = self._last = time.monotonic()
        # When the first unit was done, and how many that were.
        self._first: tuple[float, int] | None = None
        self._bar: Any = None
        self._shown: dict[str, Any] = {}

    def __enter__(self) -> Progress:
        self._started = self._last = time.monotonic()
        if self.enabled and self.stream.isatty():
            self._bar = _rich_bar(self.stream)
            self._task = self._bar.add_task(self.description, total=self.total, shown="")
            self._bar.start()
        return self

    def advance(self, n: int = 1, **shown: Any) -> None:
        self.done += n
        self._first = self._first or (time.monotonic(), self.done)
        self._shown.update(shown)
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, advance=n, shown=_values(self._shown))
        elif time.monotonic() - self._last >= self.every_s:
            self._line()

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif self.enabled and self.done > self._told:
            self._line()

    def _line(self) -> None:
        """`base: 120/240 (50%), 0:41 left, loss 3.21`"""
        self._last, self._told = time.monotonic(), self.done
        share = f" ({100 * self.done / self.total:.0f}%)" if self.total else ""
        told = [
            f"{self.description}: {self.done}/{self.total}{share}",
            self._when(),
            _values(self._shown),
        ]
        print(", ".join(filter(None, told)), file=self.stream, flush=True)

    def _when(self) -> str:
        """Time left, or taken. The first unit is not counted: what is compiled in it is compiled
        once.
        """
        if self.done >= self.total:
            return f"took {clock(self._last - self._started)}"
        at, n = self._first or (self._last, self.done)
        return (
            f"{clock((self._last - at) / (self.done - n) * (self.total - self.done))} left"
            if self.done > n
            else ""
        )


def clock(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _values(shown: dict[str, Any]) -> str:
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )


def _rich_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        console=Console(file=stream),
        redirect_stdout=sys.stdout.isatty(),  # else what is printed to a file would be shown here
    )
