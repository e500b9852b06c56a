"""What each part of the report says, as blocks: summary, exam, cost, environment, one section per
record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nanochat.report import plots
from nanochat.report.document import Block, Details, Heading, Table, Text, duration, number, size
from nanochat.report.machine_hours import stage_cost, wall_seconds
from nanochat.report.sample_blocks import samples
from nanochat.report.scores import (
    METRICS,
    ReportedScore,
    core_of,
    exam_parts,
    same_name,
    scores,
    shared_scores,
)
from nanochat.report.scores import summary as summary_scores
from nanochat.report.stage_records import read_metrics

TITLES = {
    "dataset": "Data",
    "tokenizer": "Tokenizer",
    "base_train": "Base training",
    "base_eval": "Base evaluation (CORE)",
    "mid_train": "Midtraining",
    "chat_sft": "Supervised finetuning",
    "chat_rl": "Reinforcement learning",
    "chat_eval_base": "Chat evaluation of BASE",
    "chat_eval_mid": "Chat evaluation of MID",
    "chat_eval_sft": "Chat evaluation of SFT",
    "chat_eval_rl": "Chat evaluation of RL",
    "exam": "Exam",
}
# Keys that have their own place, or none, in a section.
HANDLED = {
    "section",
    "stage",
    "written",
    "environment",
    "code_version",
    "config",
    "metrics",
    "samples",
    "started",
}
HANDLED |= {
    "finished",
    "wall_s",
    "device",
    "world_size",
    "checkpoint",
    "metrics_jsonl",
    "settings",
    "examples",
}
Records = Mapping[str, Mapping[str, Any]]


def summary(records: Records, pictures: Path) -> list[Block]:
    """The table over the stages, its intervals, and the picture of before and after."""
    table = summary_scores(records)
    rows = [
        [m, *(f"{table[c][m].value:.4f}" if m in table[c] else "-" for c in table)] for m in METRICS
    ]
    blocks: list[Block] = [
        Heading(2, "Summary"),
        Table(["Metric", *table], rows),
        Text(_dashes(table)),
    ]
    known = [
        m for m in METRICS if any(m in table[c] and table[c][m].low is not None for c in table)
    ]
    if known:
        rows = [
            [m, *(table[c][m].interval if m in table[c] else "-" for c in table)] for m in known
        ]
        blocks += [
            Text("95% Wilson intervals of the same scores:"),
            Table(["Metric", *table], rows),
        ]
    others = shared_scores(records)
    if names := list(dict.fromkeys(name for column in others.values() for name in column)):
        rows = [[n, *(_with_interval(others[c].get(n)) for c in table)] for n in names]
        blocks += [
            Text("Other tasks that several stages were given:"),
            Table(["Task", *table], rows),
        ]
    shown = [m for m in METRICS if m not in ("CORE", "ChatCORE")] + names
    everything = {column: {**table[column], **others[column]} for column in table}
    picture = plots.stages(
        "Before and after each stage", everything, shown, pictures / "plot_stages.png"
    )
    return [*blocks, picture] if picture else blocks


def _dashes(table: Mapping[str, Mapping[str, ReportedScore]]) -> str:
    """What the empty cells mean, and how to fill them."""
    known = any(table.values())
    return (
        (
            "A dash: not measured. "
            if known
            else "A dash: not measured; none of these benchmarks was run. "
        )
        + "python -m scripts.base_eval measures CORE, python -m scripts.chat_eval -i STAGE the "
        "others; ChatCORE needs " + "all of them and SpellingBee."
    )


def _with_interval(score: ReportedScore | None) -> str:
    return "-" if score is None else f"{score.value:.3f} ({score.interval})"


def exam(records: Records, pictures: Path) -> list[Block]:
    """Each part of the exam with its score and interval, the picture and some answers."""
    record = records.get("exam")
    if record is None:
        return []
    parts = exam_parts(record)
    rows = [
        [
            s.name,
            f"{s.value:.4f}",
            s.interval,
            *("-" if n is None else str(n) for n in (s.correct, s.total)),
        ]
        for s in parts
    ]
    blocks: list[Block] = [Heading(2, "Exam"), Text(_examined(record))]
    if rows:
        blocks.append(Table(["Part", "Score", "95% Wilson interval", "Right", "Questions"], rows))
    picture = plots.bars(
        "Exam", parts, "Share right (line: 95% interval)", pictures / "plot_exam.png"
    )
    more = _other(record)
    details = [Details("More about this evaluation", more)] if more else []
    return [*blocks, *([picture] if picture else []), *details, *samples(record)]


def _examined(record: Mapping[str, Any]) -> str:
    """Whose answers these are, and how they were drawn: the last evaluation counts, whatever it was
    of.
    """
    checkpoint, config = record.get("checkpoint"), record.get("config") or {}
    warm = isinstance(config, Mapping) and config.get("temperature")
    told = (
        "Held-out questions, "
        f"{f'sampled at temperature {number(warm)}' if warm else 'greedy decoding'}."
    )
    if isinstance(checkpoint, Mapping) and checkpoint.get("source"):
        told += (
            f" Model: {checkpoint['source']} {checkpoint.get('model_tag', '')}, step "
            f"{checkpoint.get('step')}."
        )
    return told


def cost(records: Records, hourly_rate: float | None) -> list[Block]:
    """Time and money of each record that says how long it took, and the sum."""
    costs = [c for name, record in records.items() if (c := stage_cost(name, record, hourly_rate))]
    if not costs:
        return []
    rows = [[TITLES[c.section], c.hardware, duration(c.wall_s), _usd(c.usd)] for c in costs]
    total = None if any(c.usd is None for c in costs) else sum(c.usd or 0.0 for c in costs)
    rows.append(["Together", "", duration(sum(c.wall_s for c in costs)), _usd(total)])
    if hourly_rate is not None:
        basis = f"At ${hourly_rate:g} for an hour of the machine (--hourly-rate)."
    elif any(c.gpus for c in costs):
        basis = (
            "At rough public prices of these GPUs (--hourly-rate takes the real price of an "
            "hour of the machine)."
        )
    else:
        basis = (
            "A machine without GPUs counts as free (--hourly-rate takes the price of an hour "
            "of it)."
        )
    return [
        Heading(2, "Time and cost"),
        Table(["Stage", "Hardware", "Time", "Cost"], rows),
        Text(basis),
    ]


def _usd(value: float | None) -> str:
    return "-" if value is None else f"${value:,.2f}"


def environment(records: Records) -> list[Block]:
    """The machine and versions of the newest record; how many others there were, if the records
    differ.
    """
    known = sorted(
        (r for r in records.values() if r.get("environment")), key=lambda r: r.get("written") or 0
    )
    if not known:
        return []
    newest = dict(known[-1]["environment"])
    rows = [_row(key, value) for key, value in newest.items() if value not in (None, "", [])]
    blocks: list[Block] = [Heading(2, "Environment"), Table(["", ""], rows, numeric=False)]
    compared = ("hostname", "torch", "python", "cpu", "gpus", "git_commit")
    kinds = {str([r["environment"].get(k) for k in compared]) for r in known}
    if len(kinds) > 1:
        blocks.append(
            Text(f"The stages ran in {len(kinds)} different environments; this is the newest.")
        )
    return blocks


def section(name: str, record: Mapping[str, Any], pictures: Path) -> list[Block]:
    """Everything one record says: outcome, curves, scores, samples, settings."""
    blocks: list[Block] = [Heading(2, TITLES[name])]
    facts = _facts(record)
    if facts:
        blocks.append(Table(["", ""], facts, numeric=False))
    if name in ("base_eval",) or name.startswith("chat_eval"):
        blocks += _evaluation(name, record, pictures)
    else:
        blocks += _results(record.get("metrics"))
        blocks += _other(record)
    rows = read_metrics(record.get("metrics_jsonl"))
    for picture in (
        plots.training_curves(f"{TITLES[name]}: loss", rows, pictures / f"plot_{name}.png"),
        plots.reward_curves(f"{TITLES[name]}: reward", rows, pictures / f"plot_{name}_reward.png"),
    ):
        blocks += [picture] if picture else []
    blocks += samples(record)
    for key, title in (("config", "Settings"), ("settings", "What followed from the settings")):
        settings = [[k, number(v)] for k, v in _flat(record.get(key)) if v not in (None, [])]
        if settings:
            blocks.append(
                Details(
                    f"{title} ({len(settings)})",
                    [Table(["Setting", "Value"], settings, numeric=False)],
                )
            )
    return blocks


def _results(metrics: Any) -> list[Block]:
    """A stage's numbers; those that were also taken before it began in a table of their own."""
    flat = dict(_flat(metrics))
    pairs = [name for name in flat if f"{name} before" in flat]
    told = {*pairs, *(f"{name} before" for name in pairs)}
    rows = [_row(name, value) for name, value in flat.items() if name not in told]
    blocks: list[Block] = [Table(["Result", "Value"], rows)] if rows else []
    if pairs:
        compared = [
            [_words(name), number(flat[f"{name} before"]), number(flat[name])] for name in pairs
        ]
        blocks.append(Table(["On held-out questions", "Before", "After"], compared))
    return blocks


def _facts(record: Mapping[str, Any]) -> list[list[str]]:
    """Where, when and on what, as rows."""
    rows = []
    if (wall_s := wall_seconds(record)) is not None:
        rows.append(["Time", duration(wall_s)])
    if isinstance(record.get("started"), (int, float)):
        started = datetime.fromtimestamp(record["started"], timezone.utc)
        rows.append(["Started", started.strftime("%Y-%m-%d %H:%M UTC")])
    if record.get("device"):
        ranks = int(record.get("world_size") or 1)
        rows.append(
            ["Device", f"{record['device']}" + (f", {ranks} processes" if ranks > 1 else "")]
        )
    checkpoint = record.get("checkpoint")
    if isinstance(checkpoint, Mapping):
        names = {"checkpoint_sha256": "sha256", "model_tag": "tag"}
        rows += [
            [f"Checkpoint {names.get(k, k)}", number(v)]
            for k, v in checkpoint.items()
            if v is not None
        ]
    elif checkpoint:
        rows.append(["Checkpoint", str(checkpoint)])
    if record.get("code_version"):
        rows.append(["Code", str(record["code_version"])])
    return rows


def _evaluation(name: str, record: Mapping[str, Any], pictures: Path) -> list[Block]:
    """Scores of a benchmark run as a table and a picture."""
    found = list(scores(record).values())
    if not found:
        return _other(record)
    core = core_of({same_name(s.name): s for s in found})
    tasks = [
        s for s in found if s is not core and same_name(s.name) != "chatcore" and s.low is not None
    ]
    plain = [s for s in found if s not in tasks]
    blocks: list[Block] = (
        [Table(["Result", "Value"], [[_words(s.name), number(s.value)] for s in plain])]
        if plain
        else []
    )
    if tasks:
        blocks.append(_score_table(tasks))
    path = pictures / f"plot_{name}.png"
    if name == "base_eval" and any(s.centered is not None for s in tasks):
        label = "Accuracy between guessing (0) and always right (1)"
        picture = plots.bars("CORE, task by task", tasks, label, path, centered=True)
    else:
        label = "Share right (line: 95% interval; orange: guessing)"
        picture = plots.bars(TITLES[name], tasks, label, path)
    more = _other(record)
    return [
        *blocks,
        *([picture] if picture else []),
        *([Details("More about this evaluation", more)] if more else []),
    ]


def _score_table(tasks: Sequence[ReportedScore]) -> Table:
    centered = any(s.centered is not None for s in tasks)
    header = ["Task", "Score", "95% Wilson interval", "Right", "Questions"] + (
        ["Centred"] if centered else []
    )
    rows = []
    for s in tasks:
        row = [s.name, f"{s.value:.4f}", s.interval, number(s.correct), number(s.total)]
        rows.append(row + ([number(s.centered)] if centered else []))
    return Table(header, rows)


def _other(record: Mapping[str, Any]) -> list[Block]:
    """What a record says beyond the agreed keys: mappings as tables, the rest in one."""
    handled = HANDLED | {"tasks", "results", "scores", "parts"}
    loose: list[list[str]] = []
    blocks: list[Block] = []
    for key, value in record.items():
        if key in handled or value is None:
            continue
        if isinstance(value, Mapping):
            rows = [_row(k, v) for k, v in _flat(value)]
            blocks += [Heading(3, _words(key)), Table(["", ""], rows)] if rows else []
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            header = list(dict.fromkeys(str(k) for v in value for k in v))[:8]
            rows = [[number(v.get(k)) for k in header] for v in value[:50]]
            blocks += [Heading(3, _words(key)), Table([_words(h) for h in header], rows)]
        else:
            loose.append(_row(key, value))
    return ([Table(["", ""], loose, numeric=False)] if loose else []) + blocks


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as dotted names; a list of mappings is counted, not shown."""
    if not isinstance(value, Mapping):
        return []
    rows: list[tuple[str, Any]] = []
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            rows += _flat(entry, f"{prefix}{key}.")
        elif isinstance(entry, list) and entry and isinstance(entry[0], (Mapping, list)):
            rows.append((f"{prefix}{key}", f"{len(entry)} entries"))
        else:
            rows.append((f"{prefix}{key}", entry))
    return rows


def _row(key: str, value: Any) -> list[str]:
    """A key and its value in its unit."""
    if key.endswith("_bytes") and not key.endswith("token_bytes"):
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(v, (int, float)) and v >= 1024 for v in values):
            return [_words(key), ", ".join(map(size, values))]
    return [_words(key), number(value)]


def _words(key: str) -> str:
    """A key for people, with its unit where the name ends in one."""
    for ending, unit in (("_per_s", " per second"), ("_bytes", ""), ("_s", " (s)")):
        if key.endswith(ending) and len(key) > len(ending):
            key = key[: -len(ending)] + unit
            break
    return key.replace("_", " ")
