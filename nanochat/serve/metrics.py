"""Numbers about the server in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BETWEEN_TOKENS_S = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)


Gauge = tuple[str, str, list[tuple[list[tuple[str, str]], float]]]  # name, help, [(labels, value)]


def labelled(name: str, labels: Iterable[tuple[str, str]]) -> str:
    """`name{key="value"}` with the value escaped."""
    pairs = []
    for key, value in labels:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        pairs.append(f'{key}="{escaped}"')
    return f"{name}{{{','.join(pairs)}}}" if pairs else name


def header(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]


class Counter:
    """A number for each set of label values that only grows."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self.name, self.about, self.labels = name, about, labels
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, amount: float, *values: str) -> None:
        assert len(values) == len(self.labels)
        self.values[values] = self.values.get(values, 0) + amount

    def lines(self) -> list[str]:
        rows = [
            f"{labelled(self.name, zip(self.labels, values, strict=True))} {amount:g}"
            if amount < 1e6
            else f"{labelled(self.name, zip(self.labels, values, strict=True))} {amount:.0f}"
            for values, amount in sorted(self.values.items())
        ]
        return header(self.name, "counter", self.about) + rows


class Histogram:
    """How often a duration fell below each bound, for each model."""

    def __init__(self, name: str, about: str, bounds_s: tuple[float, ...]) -> None:
        self.name, self.about, self.bounds_s = name, about, bounds_s
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, seconds: float, model: str) -> None:
        counts = self._counts.setdefault(model, [0] * (len(self.bounds_s) + 1))
        counts[bisect_left(self.bounds_s, seconds)] += 1
        self._sums[model] = self._sums.get(model, 0.0) + seconds

    def lines(self) -> list[str]:
        rows = header(self.name, "histogram", self.about)
        for model, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*map(str, self.bounds_s), "+Inf"), counts, strict=True):
                total += count
                rows.append(
                    f"{labelled(self.name + '_bucket', [('model', model), ('le', bound)])} {total}"
                )
            rows.append(
                f"{labelled(self.name + '_sum', [('model', model)])} {self._sums[model]:.6f}"
            )
            rows.append(f"{labelled(self.name + '_count', [('model', model)])} {total}")
        return rows


class Metrics:
    """What the server counts while it runs; what it holds at the moment is asked for when it is
    written.
    """

    def __init__(self) -> None:
        self.requests = Counter("nanochat_requests_total", "Requests answered.", "path", "status")
        self.answers = Counter(
            "nanochat_answers_total", "Answers finished, by reason.", "model", "finish_reason"
        )
        self.prompt_tokens = Counter("nanochat_prompt_tokens_total", "Tokens of prompts.", "model")
        self.cached_tokens = Counter(
            "nanochat_cached_prompt_tokens_total", "Those found in the cache.", "model"
        )
        self.generated_tokens = Counter(
            "nanochat_generated_tokens_total", "Tokens of answers.", "model"
        )
        self.first_token = Histogram(
            "nanochat_time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            FIRST_TOKEN_S,
        )
        self.between_tokens = Histogram(
            "nanochat_inter_token_latency_seconds",
            "Between two tokens of one answer.",
            BETWEEN_TOKENS_S,
        )

    def text(self, gauges: Iterable[Gauge]) -> str:
        """Everything as one document."""
        rows: list[str] = []
        for name, about, values in gauges:
            rows += header(name, "gauge", about)
            rows += [f"{labelled(name, labels)} {value:.0f}" for labels, value in values]
        for metric in vars(self).values():
            rows += metric.lines()
        return "\n".join(rows) + "\n"
