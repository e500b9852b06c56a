"""What an evaluation leaves behind: scores with intervals, every single verdict, and what exactly
was evaluated.

`<checkpoint dir>/<kind>_<step>.json` holds everything, `<base>/report/<section>.json` the part that
a report shows. Both are plain data; evaluating further tasks of the same weights adds to them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nanochat.eval.intervals import centered, wilson
from nanochat.runtime.base_dir import check_writable
from nanochat.runtime.files import atomic_write, sha256_file
from nanochat.runtime.machine import code_version, environment
from nanochat.runtime.metric_log import track_scores
from nanochat.runtime.records import report_dir, write_record
from nanochat.tokenizer import Tokenizer

LIMITS = ("max_problems", "max_per_task")  # settings that leave problems out
# Settings that change a verdict. The likeliest of some choices does not depend on how answers are
# drawn.
DECIDING = ("compute_dtype", "eval_bundle")
SAMPLING = (
    *("temperature", "top_k", "max_new_tokens", "num_samples", "seed"),
    *("sql_data", "knowledge", "gate"),
)
PACKAGES = ("nanochat", "torch", "numpy", "tiktoken", "rustbpe", "pyarrow")
IN_REPORT = (
    *("score", "low", "high", "n", "baseline", "centered", "pass_at", "wall_s"),
    *("parts", "counts", "cases"),
)


def scored(verdicts: Sequence[float], baseline: float, **more: Any) -> dict[str, Any]:
    """A task's entry: score in [0, 1] with its Wilson 95% interval, centred on the baseline, and
    each verdict. ValueError when there are none: nothing was measured.
    """
    n = len(verdicts)
    if n == 0:
        raise ValueError("there is no verdict to score: a task needs at least one problem")
    total = float(sum(verdicts))
    low, high = wilson(total, n)
    return {
        "score": total / n,
        "low": low,
        "high": high,
        "n": n,
        "baseline": baseline,
        "centered": centered(total / n, baseline),
        **more,
        "correct": [int(v) if v in (0, 1) else float(v) for v in verdicts],
    }


def centered_mean(tasks: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> float | None:
    """Mean of the centred scores, None unless every one of `names` was evaluated: a part is not
    comparable.
    """
    wanted = list(names)
    if not wanted or any(name not in tasks for name in wanted):
        return None
    return sum(tasks[name]["centered"] for name in wanted) / len(wanted)


def table(tasks: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> str:
    """Aligned lines `task  score  [low, high]  n` for people."""
    width = max([len(name) for name in tasks] + [4])
    lines = [f"{'task':<{width}}   score   95% interval        n"]
    for name in names:
        t = tasks[name]
        lines.append(
            f"{name:<{width}}  {t['score']:6.4f}   [{t['low']:.4f}, {t['high']:.4f}]  {t['n']:6d}"
        )
    return "\n".join(lines)


def why_closed(folder: Path) -> str:
    """Why results cannot be kept in the folder; empty when they can."""
    try:
        check_writable(folder, fix="results are printed, not saved there")
    except ValueError as error:
        return str(error)
    return ""


class ResultsFile:
    """The results of one kind of evaluation of one checkpoint, and the report's sections about
    them.

    Made before the work, so that what would keep them from being saved is known: a damaged file of
    earlier results is a ValueError; `closed` folders may only be read, each with the reason.
    """

    def __init__(self, kind: str, directory: Path, step: int) -> None:
        self.kind = kind
        self.path = directory / f"{kind}_{step:06d}.json"
        self._earlier()
        folders = (directory, report_dir())
        self.closed = {folder: why for folder in folders if (why := why_closed(folder))}

    def _earlier(self) -> dict[str, Any]:
        return read_results(self.path) if self.path.is_file() else {}

    def document(
        self,
        identity: Mapping[str, Any],
        tasks: Mapping[str, Mapping[str, Any]],
        metrics: Mapping[str, Any] | None = None,
        means: Mapping[str, Iterable[str]] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """What is known of the weights that `identity` (see `identify`) stands for.

        Tasks and metrics of earlier evaluations of the same weights stay unless evaluated anew;
        those of other weights go. A look at some problems does not replace an earlier one at more
        of them; that is said. `means`: metric -> tasks whose centred mean it is.
        """
        document: dict[str, Any] = {"kind": self.kind, **identity}
        earlier = self._earlier()
        same = earlier.get("checkpoint_sha256") == document["checkpoint_sha256"]
        for name, value in earlier.items() if same else ():
            document.setdefault(name, value)
        known = earlier["tasks"] if same else {}
        fuller = {
            name: known[name]
            for name in tasks
            if name in known and covers_more(known[name], tasks[name])
        }
        for name, entry in fuller.items():
            print(
                f"{name}: {self.path} keeps the result over {entry['n']} problems, not this one "
                f"over {tasks[name]['n']}"
            )
        document["tasks"] = {**known, **tasks, **fuller}
        document["metrics"] = {**(earlier.get("metrics", {}) if same else {}), **(metrics or {})}
        for name, of in (means or {}).items():
            document["metrics"][name] = centered_mean(document["tasks"], of)
        return {**document, **more}

    def save(self, document: Mapping[str, Any]) -> None:
        """Write the file, unless its folder is closed, and say where it is."""
        if self.path.parent in self.closed:
            print(f"results: not in {self.path}, which cannot be written")
            return
        atomic_write(self.path, json.dumps(document, indent=1, allow_nan=False) + "\n")
        print(f"results: {self.path}")

    def save_section(
        self, section: str, document: Mapping[str, Any], names: Iterable[str] | None = None
    ) -> None:
        """Hand the report its part of a document: the tasks in `names` (default: all); W&B gets
        the scores where $WANDB_RUN names a run.
        """
        if report_dir() not in self.closed:
            part = section_of(document, names)
            write_record(section, part)
            track_scores(section, document["step"], scores_of(part))


def scores_of(part: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a section: means, and the score of each task."""
    means = {name: value for name, value in part["metrics"].items() if value is not None}
    tasks = {name: entry["score"] for name, entry in part["tasks"].items() if "score" in entry}
    return {**means, **tasks}


def section_of(document: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """A report's section of a document: the tasks in `names` (default: all), sums instead of
    verdicts.
    """
    wanted = list(document["tasks"] if names is None else names)
    entries = {name: document["tasks"][name] for name in wanted if name in document["tasks"]}
    settings = [entry["settings"] for entry in entries.values() if "settings" in entry]
    samples = [
        {"task": name, **sample}
        for name, entry in entries.items()
        for sample in entry.get("samples", ())
    ]
    if names is None:
        samples += document.get("completions", ())
    return {
        **{name: document[name] for name in ("written", "code_version", "environment")},
        "wall_s": sum(entry.get("wall_s", 0.0) for entry in entries.values()),
        "checkpoint": {
            name: document[name] for name in ("source", "model_tag", "step", "checkpoint_sha256")
        },
        "tokenizer": document["tokenizer"],
        "packages": document["packages"],
        "metrics": dict(document["metrics"]) if names is None else {},
        "tasks": {
            name: {
                **{key: entry[key] for key in IN_REPORT if key in entry},
                "correct": round(sum(entry["correct"])),
            }
            for name, entry in entries.items()
        },
        "samples": samples,
        "not_found": document.get("not_found", {}) if names is None else {},
        "config": settings[-1] if settings else {},
    }


def package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def identify(meta: Mapping[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """Which weights and tokenizer, and which code and machine looked at them. `meta` as
    `load_model` returns it.
    """
    directory, step = Path(meta["directory"]), int(meta["step"])
    name = f"model_{step:06d}.pt"
    known = meta.get("files", {}).get(name, {}).get("sha256")  # loading has checked it
    return {
        "source": meta["source"],
        "model_tag": directory.name,
        "step": step,
        "checkpoint": str(directory / name),
        "checkpoint_sha256": known or sha256_file(directory / name),
        "tokenizer": tokenizer.identity(),
        "model_config": meta["model_config"],
        "packages": package_versions(),
        "code_version": code_version(),
        "environment": environment(),
        "written": time.time(),
    }


def covers_more(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether `new` is a part of its task and `old` a larger one, evaluated with the same settings.

    A whole task is never a part, also where it has become smaller since.
    """
    then, now = old.get("settings", {}), new.get("settings", {})
    matter = DECIDING if new.get("eval_type") == "categorical" else DECIDING + SAMPLING
    limited = any((now.get(name) or 0) > 0 for name in LIMITS)
    return (
        limited and old["n"] > new["n"] and all(then.get(name) == now.get(name) for name in matter)
    )


def read_results(path: Path) -> dict[str, Any]:
    """A results file. ValueError when it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable results file ({error}); move it away and evaluate again"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("tasks"), dict):
        raise ValueError(
            f"{path}: not a results file (it has no tasks); name one written by an evaluation"
        )
    return document
