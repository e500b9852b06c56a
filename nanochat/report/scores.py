"""Reading scores out of records, and the uncertainty that belongs to each."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

METRICS = ("CORE", "ARC-Challenge", "ARC-Easy", "GSM8K", "HumanEval", "MMLU", "ChatCORE")
# Column of the summary -> the sections whose scores it shows.
STAGES = {
    "BASE": ("base_eval", "chat_eval_base"),
    "MID": ("chat_eval_mid",),
    "SFT": ("chat_eval_sft",),
    "RL": ("chat_eval_rl",),
}
CONTAINERS = ("tasks", "results", "scores", "parts", "metrics")
NAMES = ("name", "task", "label", "part")
VALUES = ("accuracy", "score", "value", "pass@1", "rate")


@dataclass(frozen=True)
class ReportedScore:
    """A share of right answers in [0, 1] (centred scores may lie below 0), with its 95% interval
    where it is known.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    correct: int | None = None
    total: int | None = None
    centered: float | None = None
    baseline: float | None = None

    @property
    def interval(self) -> str:
        return (
            "-" if self.low is None or self.high is None else f"{self.low:.3f} to {self.high:.3f}"
        )


def wilson(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95% Wilson score interval of `correct` of `total` (Wilson 1927,
    doi:10.1080/01621459.1927.10502953).
    """
    if total <= 0:
        return 0.0, 1.0
    share, square = correct / total, z * z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = (
        z
        * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
        / (1 + square / total)
    )
    # Rounding must not push a bound past the share itself (0 of 69 gave a lower bound of 3e-18).
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def same_name(name: str) -> str:
    """`ARC-Easy`, `arc_easy` and `ArcEasy` are one metric."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    return next((n for n in (_number(entry.get(key)) for key in keys) if n is not None), None)


def _score(name: str, entry: Any) -> ReportedScore | None:
    """A score from a bare number or from a mapping in any of the shapes that evaluations write."""
    if (bare := _number(entry)) is not None:
        return ReportedScore(name, bare)
    if not isinstance(entry, Mapping):
        return None
    raw = entry.get("correct", entry.get("passed"))
    correct = float(sum(map(bool, raw))) if isinstance(raw, list) else _number(raw)
    total = (
        float(len(raw))
        if isinstance(raw, list)
        else _first(entry, ("total", "n", "count", "examples", "num"))
    )
    value = _first(entry, VALUES)
    if value is None:
        if correct is None or not total:
            return None
        value = correct / total
    low, high = _first(entry, ("low", "lower")), _first(entry, ("high", "upper"))
    pair = next(
        (entry[k] for k in ("interval", "ci95", "wilson", "wilson95", "ci") if k in entry), None
    )
    if isinstance(pair, (list, tuple)) and len(pair) == 2:
        low, high = _number(pair[0]), _number(pair[1])
    if low is None and total and 0 <= value <= 1:
        low, high = wilson(value * total if correct is None else correct, int(total))
    counts = (None if correct is None else int(correct), None if not total else int(total))
    return ReportedScore(
        name,
        value,
        low,
        high,
        *counts,
        _first(entry, ("centered", "centred")),
        _first(entry, ("baseline",)),
    )


def scores(
    record: Mapping[str, Any], containers: tuple[str, ...] = CONTAINERS
) -> dict[str, ReportedScore]:
    """Every score in a record by its normal name; a detailed entry wins over a bare number of the
    same name.
    """
    found: dict[str, ReportedScore] = {}
    for name, entry in _entries(record, containers):
        score = _score(name, entry)
        key = same_name(name)
        if score is not None and (key not in found or found[key].low is None):
            found[key] = score
    return found


def _entries(record: Mapping[str, Any], containers: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for container in containers:
        content = record.get(container)
        if isinstance(content, Mapping):
            yield from ((str(name), entry) for name, entry in content.items())
        elif isinstance(content, list):
            for entry in content:
                name = (
                    next((entry[k] for k in NAMES if k in entry), None)
                    if isinstance(entry, Mapping)
                    else None
                )
                if name is not None:
                    yield str(name), entry


def core_of(found: Mapping[str, ReportedScore]) -> ReportedScore | None:
    """The CORE score under the names it goes by."""
    return next((found[key] for key in ("core", "coremetric", "corescore") if key in found), None)


def summary(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, ReportedScore]]:
    """column -> metric -> score, for the metrics of the summary table that there are."""
    table: dict[str, dict[str, ReportedScore]] = {}
    for column, sections in STAGES.items():
        table[column] = {}
        for section in sections:
            found = scores(records.get(section, {}))
            # The few-shot `arc_easy` of CORE is not the chat benchmark ARC-Easy: from there only
            # CORE itself.
            for metric in ("CORE",) if section == "base_eval" else METRICS:
                score = core_of(found) if metric == "CORE" else found.get(same_name(metric))
                if score is not None:
                    table[column].setdefault(metric, score)
    return table


def shared_scores(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, ReportedScore]]:
    """column -> task -> score of the chat tasks outside the summary table that at least two stages
    were given.
    """
    known = {same_name(metric) for metric in METRICS}
    found = {
        column: {
            score.name: score
            for section in sections
            if section != "base_eval"
            for key, score in scores(records.get(section, {}), CONTAINERS[:-1]).items()
            if key not in known and score.low is not None
        }
        for column, sections in STAGES.items()
    }
    counts = Counter(name for column in found.values() for name in column)
    return {column: {n: s for n, s in of.items() if counts[n] > 1} for column, of in found.items()}


def exam_parts(record: Mapping[str, Any]) -> list[ReportedScore]:
    """The parts of the exam in the order they were written; from `metrics` only where no list of
    parts is given.
    """
    found = scores(record, ("parts", "tasks", "results", "scores"))
    if not found:
        found = {k: s for k, s in scores(record, ("metrics",)).items() if 0 <= s.value <= 1}
    return list(found.values())
