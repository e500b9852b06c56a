"""The scores in a record: what `eval/results.py` writes, with the interval that belongs to each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanochat.tasks.catalogue import SUMMARY

# Column of the summary -> the sections whose scores it shows.
STAGES = {
    "BASE": ("base_eval", "chat_eval_base"),
    "MID": ("chat_eval_mid",),
    "SFT": ("chat_eval_sft",),
    "RL": ("chat_eval_rl",),
}
Records = Mapping[str, Mapping[str, Any]]
Scores = dict[str, "ReportedScore"]


@dataclass(frozen=True, kw_only=True)
class ReportedScore:
    """A share of right answers in [0, 1] (means of centred scores may lie below 0); a task's score
    has a 95% interval, the number right and the number asked.
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
        if self.low is None or self.high is None:
            return "-"
        return f"{self.low:.3f} to {self.high:.3f}"


def task_scores(record: Mapping[str, Any]) -> Scores:
    """Task -> score, in the order in which the evaluation wrote them."""
    tasks = record.get("tasks")
    return {
        name: ReportedScore(
            name=name,
            value=entry["score"],
            low=entry.get("low"),
            high=entry.get("high"),
            correct=entry.get("correct"),
            total=entry.get("n"),
            centered=entry.get("centered"),
            baseline=entry.get("baseline"),
        )
        for name, entry in (tasks if isinstance(tasks, Mapping) else {}).items()
    }


def mean_scores(record: Mapping[str, Any]) -> Scores:
    """The numbers that stand for a whole evaluation: CORE, ChatCORE, bits per byte."""
    metrics = record.get("metrics")
    return {
        name: ReportedScore(name=name, value=float(value))
        for name, value in (metrics if isinstance(metrics, Mapping) else {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def summary_scores(records: Records) -> dict[str, Scores]:
    """Column -> metric -> score, for the metrics of the summary table that there are."""
    table: dict[str, Scores] = {column: {} for column in STAGES}
    for column, sections in STAGES.items():
        for section in sections:
            record = records.get(section, {})
            found = {**mean_scores(record), **task_scores(record)}
            table[column] |= {name: found[name] for name in SUMMARY if name in found}
    return table


def shared_scores(records: Records) -> dict[str, Scores]:
    """Column -> task -> score of the chat tasks outside the summary table that at least two stages
    were given.
    """
    found: dict[str, Scores] = {
        column: {
            name: score
            for section in sections
            if section != "base_eval"
            for name, score in task_scores(records.get(section, {})).items()
            if name not in SUMMARY
        }
        for column, sections in STAGES.items()
    }
    counts = Counter(name for column in found.values() for name in column)
    return {column: {n: s for n, s in of.items() if counts[n] > 1} for column, of in found.items()}
