"""Scores as tables and pictures: the summary over the stages, the exam, one benchmark run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanochat.report.bars import score_bars, stage_bars
from nanochat.report.blocks import Block, Heading, Table, Text
from nanochat.report.quantities import number, words
from nanochat.report.scores import (
    Records,
    ReportedScore,
    Scores,
    mean_scores,
    shared_scores,
    summary_scores,
    task_scores,
)
from nanochat.report.task_parts import task_parts
from nanochat.tasks.catalogue import SUMMARY

HOW_TO_MEASURE = (
    "python -m scripts.base_eval measures CORE, python -m scripts.chat_eval -i STAGE the others; "
    "ChatCORE needs all of them and SpellingBee."
)


def summary(records: Records, pictures: Path) -> list[Block]:
    """The table over the stages, its intervals, and the picture of before and after."""
    table = summary_scores(records)
    told = "A dash: not measured. "
    if not any(table.values()):
        told = "A dash: not measured; none of these benchmarks was run. "
    blocks: list[Block] = [
        Heading(2, "Summary"),
        _over_stages("Metric", SUMMARY, table, lambda score: f"{score.value:.4f}"),
        Text(told + HOW_TO_MEASURE),
    ]
    known = [m for m in SUMMARY if any(m in of and of[m].low is not None for of in table.values())]
    if known:
        blocks += [
            Text("95% Wilson intervals of the same scores:"),
            _over_stages("Metric", known, table, lambda score: score.interval),
        ]
    others = shared_scores(records)
    names = list(dict.fromkeys(name for of in others.values() for name in of))
    if names:
        blocks += [
            Text("Other tasks that several stages were given:"),
            _over_stages("Task", names, others, lambda s: f"{s.value:.3f} ({s.interval})"),
        ]
    shown = [m for m in SUMMARY if m not in ("CORE", "ChatCORE")] + names
    everything = {column: {**table[column], **others[column]} for column in table}
    picture = stage_bars(
        "Before and after each stage", everything, shown, pictures / "plot_stages.png"
    )
    return [*blocks, picture] if picture else blocks


def _over_stages(first: str, names: Sequence[str], table: Mapping[str, Scores], cell: Any) -> Table:
    rows = [[n, *(cell(of[n]) if n in of else "-" for of in table.values())] for n in names]
    return Table([first, *table], rows)


def exam(record: Mapping[str, Any], pictures: Path) -> list[Block]:
    """Each part of the exam with its score and interval, and the picture."""
    parts = list(task_scores(record).values())
    blocks: list[Block] = [Text(_examined(record))]
    if parts:
        blocks.append(score_table("Part", parts))
    label = "Share right (line: 95% interval)"
    picture = score_bars("Exam", parts, label, pictures / "plot_exam.png")
    return [*blocks, picture] if picture else blocks


def _examined(record: Mapping[str, Any]) -> str:
    """Whose answers these are, and how they were drawn: the last evaluation counts, whatever it was
    of.
    """
    warm = (record.get("config") or {}).get("temperature")
    how = f"sampled at temperature {number(warm)}" if warm else "greedy decoding"
    told = f"Held-out questions, {how}."
    model = record.get("checkpoint") or {}
    if model.get("source"):
        told += f" Model: {model['source']} {model.get('model_tag', '')}, step {model.get('step')}."
    return told


def benchmarks(title: str, core: bool, record: Mapping[str, Any], pictures: Path) -> list[Block]:
    """Scores of a benchmark run as tables and a picture; `core`: of CORE's tasks, centred."""
    tasks = list(task_scores(record).values())
    means = [[words(s.name), number(s.value)] for s in mean_scores(record).values()]
    blocks: list[Block] = [Table(["Result", "Value"], means)] if means else []
    if tasks:
        blocks.append(score_table("Task", tasks, centered=True))
    path = pictures / f"plot_{record['section']}.png"
    if core:
        label = "Accuracy between guessing (0) and always right (1)"
        picture = score_bars("CORE, task by task", tasks, label, path, centered=True)
    else:
        label = "Share right (line: 95% interval; orange: guessing)"
        picture = score_bars(title, tasks, label, path)
    if picture:
        blocks.append(picture)
    for name, entry in (record.get("tasks") or {}).items():
        blocks += task_parts(name, entry)
    return blocks


def score_table(first: str, found: Sequence[ReportedScore], centered: bool = False) -> Table:
    """Scores with what they rest on."""
    header = [first, "Score", "95% Wilson interval", "Right", "Questions"]
    rows = [
        [s.name, f"{s.value:.4f}", s.interval, number(s.correct), number(s.total)] for s in found
    ]
    if not centered:
        return Table(header, rows)
    with_centred = [[*cells, number(s.centered)] for cells, s in zip(rows, found, strict=True)]
    return Table([*header, "Centred"], with_centred)
