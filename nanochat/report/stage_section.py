"""Everything one record says, as blocks: when and on what, results, curves, samples, settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nanochat.report import curves, score_tables
from nanochat.report.blocks import Block, Details, Heading, Table
from nanochat.report.quantities import duration, flat, number, row, words
from nanochat.report.sample_blocks import samples
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
HANDLED = frozenset(
    "section stage written environment code_version config metrics samples started finished wall_s "
    "device world_size checkpoint metrics_jsonl settings tasks mixture".split()
)
SHOWN_COLUMNS, SHOWN_ROWS = 8, 50  # of a list of mappings


def section(name: str, record: Mapping[str, Any], pictures: Path) -> list[Block]:
    """The blocks of one record under its heading."""
    title = TITLES[name]
    blocks: list[Block] = [Heading(2, title)]
    if name == "exam":
        blocks += score_tables.exam(record, pictures) + _more(record)
    elif name == "base_eval" or name.startswith("chat_eval"):
        blocks += _facts(record)
        core = name == "base_eval"
        blocks += score_tables.benchmarks(title, core, record, pictures) + _more(record)
    else:
        blocks += _facts(record) + _results(record.get("metrics")) + _other(record)
        blocks += mixture(record.get("mixture"))
    rows = read_metrics(record.get("metrics_jsonl"))
    for what, ending, shown in (
        ("loss", "", curves.TRAINING),
        ("reward", "_reward", curves.REWARD),
    ):
        path = pictures / f"plot_{name}{ending}.png"
        picture = curves.run_curves(f"{title}: {what}", rows, shown, path)
        blocks += [picture] if picture else []
    blocks += samples(record)
    if name != "exam":
        for key, heading in (("config", "Settings"), ("settings", "What followed from them")):
            blocks += _settings(heading, record.get(key))
    return blocks


def _settings(heading: str, settings: Any) -> list[Block]:
    rows = [[key, number(value)] for key, value in flat(settings) if value not in (None, [])]
    table = Table(["Setting", "Value"], rows, numeric=False)
    return [Details(f"{heading} ({len(rows)})", [table])] if rows else []


def _facts(record: Mapping[str, Any]) -> list[Block]:
    """When and on what, as a table."""
    rows = []
    if record.get("wall_s") is not None:
        rows.append(["Time", duration(record["wall_s"])])
    if record.get("started") is not None:
        started = datetime.fromtimestamp(record["started"], timezone.utc)
        rows.append(["Started", started.strftime("%Y-%m-%d %H:%M UTC")])
    if record.get("device"):
        ranks = int(record.get("world_size") or 1)
        rows.append(["Device", record["device"] + (f", {ranks} processes" if ranks > 1 else "")])
    names = {"checkpoint_sha256": "sha256", "model_tag": "tag"}
    for key, value in (record.get("checkpoint") or {}).items():
        rows.append([f"Checkpoint {names.get(key, key)}", number(value)])
    if record.get("code_version"):
        rows.append(["Code", str(record["code_version"])])
    return [Table(["", ""], rows, numeric=False)] if rows else []


def _results(metrics: Any) -> list[Block]:
    """A stage's numbers; those that were also taken before it began in a table of their own."""
    known = dict(flat(metrics))
    pairs = [name for name in known if f"{name} before" in known]
    told = {*pairs, *(f"{name} before" for name in pairs)}
    rows = [row(name, value) for name, value in known.items() if name not in told]
    blocks: list[Block] = [Table(["Result", "Value"], rows)] if rows else []
    if pairs:
        compared = [
            [words(name), number(known[f"{name} before"]), number(known[name])] for name in pairs
        ]
        blocks.append(Table(["On held-out questions", "Before", "After"], compared))
    return blocks


def mixture(lines: Any) -> list[Block]:
    """What a stage was trained on, source by source."""
    if not lines:
        return []
    header = ["Source", "Rows", "Epochs", "Share", "Held out", "Hash"]
    rows = [
        [
            str(line["source"]),
            number(line["rows"]),
            number(line["epochs"]),
            f"{line['share']:.1%}",
            number(line["held_out"]),
            str(line["hash"]),
        ]
        for line in lines
    ]
    return [Heading(3, "What was mixed"), Table(header, rows)]


def _more(record: Mapping[str, Any]) -> list[Block]:
    more = _other(record)
    return [Details("More about this evaluation", more)] if more else []


def _other(record: Mapping[str, Any]) -> list[Block]:
    """What a record says beyond the agreed keys: mappings as tables, the rest in one."""
    loose: list[list[str]] = []
    blocks: list[Block] = []
    for key, value in record.items():
        if key in HANDLED or value is None:
            continue
        if isinstance(value, Mapping):
            rows = [row(k, v) for k, v in flat(value)]
            blocks += [Heading(3, words(key)), Table(["", ""], rows)] if rows else []
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            header = list(dict.fromkeys(str(k) for v in value for k in v))[:SHOWN_COLUMNS]
            rows = [[number(v.get(k)) for k in header] for v in value[:SHOWN_ROWS]]
            blocks += [Heading(3, words(key)), Table([words(h) for h in header], rows)]
        else:
            loose.append(row(key, value))
    return ([Table(["", ""], loose, numeric=False)] if loose else []) + blocks
