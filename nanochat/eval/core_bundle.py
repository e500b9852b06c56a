"""The files of the CORE eval bundle: which tasks it has, and whether all of it is there. Reads no
examples and needs no torch.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import base_dir

KINDS = ("multiple_choice", "schema", "language_modeling")
ENTRY_FIELDS = ("label", "dataset_uri", "icl_task_type", "num_fewshot")


@dataclass(frozen=True, kw_only=True)
class CoreTask:
    """One line of the bundle's `core.yaml`. `baseline` is the score of guessing, in [0, 1]."""

    label: str
    path: Path
    kind: str
    num_fewshot: int
    delimiter: str
    baseline: float


def read_bundle(
    bundle: Path | str | None = None, labels: Sequence[str] | None = None
) -> list[CoreTask]:
    """The tasks of an eval bundle (default: `<base>/eval_bundle`), or those in `labels`.

    Raises ValueError naming every file that is missing, every task without a baseline and every
    unknown label.
    """
    root = Path(bundle) if bundle else base_dir() / "eval_bundle"
    baselines = _read_baselines(root / "eval_meta_data.csv")
    tasks, problems = [], []
    for entry in _read_entries(root):
        label, path = entry["label"], root / "eval_data" / entry["dataset_uri"]
        if not path.is_file():
            problems.append(f"{label}: {path} is missing")
        if not baselines.get(label, 1.0) < 1:
            problems.append(f"{label}: no baseline below 100% in eval_meta_data.csv")
        if entry["icl_task_type"] not in KINDS:
            problems.append(
                f"{label}: icl_task_type {entry['icl_task_type']!r} is none of {', '.join(KINDS)}"
            )
        task = CoreTask(
            label=label,
            path=path,
            kind=entry["icl_task_type"],
            num_fewshot=int(entry["num_fewshot"][0]),
            delimiter=entry.get("continuation_delimiter", " "),
            baseline=baselines.get(label, 0.0),
        )
        tasks.append(task)
    if problems:
        raise ValueError(
            f"eval_bundle: {root} is not whole; fetch it again:\n  " + "\n  ".join(problems)
        )
    known = [task.label for task in tasks]
    if unknown := sorted(set(labels or ()) - set(known)):
        raise ValueError(f"tasks: unknown {', '.join(unknown)}; the bundle has {', '.join(known)}")
    return [task for task in tasks if not labels or task.label in labels]


def _read_entries(root: Path) -> list[dict[str, Any]]:
    import yaml

    if not (root / "core.yaml").is_file():
        raise ValueError(
            f"eval_bundle: {root} has no core.yaml; to get it, run `bash "
            "scripts/download_data.sh` on a machine with "
            "internet, or name the folder with --eval-bundle"
        )
    try:
        entries = yaml.safe_load((root / "core.yaml").read_text(encoding="utf-8"))["icl_tasks"]
        complete = entries and all(entry[name] for entry in entries for name in ENTRY_FIELDS)
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        complete = False
    if not complete:
        raise ValueError(
            f"eval_bundle: {root / 'core.yaml'} is damaged: under icl_tasks each task needs "
            f"{', '.join(ENTRY_FIELDS)}; fetch it again"
        )
    return entries


def _read_baselines(path: Path) -> dict[str, float]:
    """Label -> share of right answers from guessing; nothing for what cannot be read."""
    found: dict[str, float] = {}
    if path.is_file():
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    found[row["Eval Task"]] = float(row["Random baseline"]) / 100
    return found
