"""Which differences between two evaluated models exceed noise: paired tests on the single verdicts.

Both models answered the same questions, so what counts is where they disagree. Right-or-wrong
verdicts are compared by McNemar's exact test, shares of several samples by a paired bootstrap;
p-values are corrected (Holm) for the number of tasks looked at. Intervals of the difference are
bootstrapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nanochat.checkpoint_manager import find_checkpoint
from nanochat.config import Positional
from nanochat.eval.intervals import (
    bootstrap_difference,
    bootstrap_means,
    bootstrap_p,
    centered,
    holm,
    mcnemar_exact,
)
from nanochat.eval.results import read_results
from nanochat.model_spec import parse_spec
from nanochat.runtime.base_dir import expanded

KINDS = ("base_eval", "chat_eval")


@dataclass
class CompareConfig:
    """Compare two evaluated models task by task and say which differences exceed noise."""

    run_a: Positional[str]
    """Results file, checkpoint folder, or stage[:tag[:step]] such as sft:d20."""
    run_b: Positional[str]
    """The other one."""
    alpha: float = 0.05
    """A difference counts when its corrected p-value is below this."""

    def problems(self) -> list[str]:
        return (
            []
            if 0 < self.alpha < 1
            else [f"--alpha={self.alpha}: must be between 0 and 1, for example 0.05"]
        )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One task: scores of both on their `n` common examples, b - a with its 95% interval, and
    p-values.
    """

    task: str
    n: int
    a: float
    b: float
    low: float
    high: float
    p: float
    p_corrected: float = 1.0

    @property
    def difference(self) -> float:
        return self.b - self.a


def find_results(run: str) -> dict[str, Any]:
    """Results named by a file, a checkpoint folder or stage[:tag[:step]] -> {"name", "tasks"}.

    In a folder the newest evaluated step counts. Raises ValueError saying where it looked.
    """
    path = expanded(run)
    if path.is_file():
        files = [path]
    else:
        folder, step = (path, None) if path.is_dir() else _checkpoint_folder(run)
        files = [file for kind in KINDS for file in _newest(folder, kind, step)]
        if not files:
            raise ValueError(
                f"{run}: no results in {folder} (looked for "
                f"{' and '.join(f'{k}_*.json' for k in KINDS)}); "
                "evaluate it first with `python -m scripts.chat_eval` or `python -m "
                "scripts.base_eval`"
            )
    tasks: dict[str, Any] = {}
    for file in files:
        tasks |= read_results(file)["tasks"]
    return {"name": ", ".join(str(file) for file in files), "tasks": tasks}


def _checkpoint_folder(run: str) -> tuple[Path, int | None]:
    try:
        spec = parse_spec(run.replace("/", ":"))
    except ValueError as error:
        raise ValueError(f"{run}: no such file or folder; {error}") from None
    folder, _, _ = find_checkpoint(spec.source, spec.tag, spec.step)
    return folder, spec.step


def _newest(folder: Path, kind: str, step: int | None) -> list[Path]:
    if step is not None:
        return [path] if (path := folder / f"{kind}_{step:06d}.json").is_file() else []
    return sorted(folder.glob(f"{kind}_[0-9]*.json"))[-1:]


def paired(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts on the examples that both entries have, in the same order: float64 (n,), (n,)."""
    index_a, index_b = (entry.get("problems") or range(len(entry["correct"])) for entry in (a, b))
    of_b = dict(zip(index_b, b["correct"], strict=True))
    pairs = [(x, of_b[i]) for i, x in zip(index_a, a["correct"], strict=True) if i in of_b]
    values = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def compare_task(name: str, a: np.ndarray, b: np.ndarray) -> Difference:
    low, high, p = bootstrap_difference(a.tolist(), b.tolist())
    if set(np.unique(np.concatenate([a, b])).tolist()) <= {0.0, 1.0}:
        p = mcnemar_exact(int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum()))
    return Difference(
        task=name, n=len(a), a=float(a.mean()), b=float(b.mean()), low=low, high=high, p=p
    )


def compare_results(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Differences of the tasks that both have, p-values corrected together, and their mean when
    there are several.

    `a`, `b`: name -> entry with `correct` and, where a subset was evaluated, `problems`.
    """
    pairs = {name: paired(a[name], b[name]) for name in a if name in b}
    found = [compare_task(name, *values) for name, values in pairs.items() if len(values[0])]
    corrected = holm([d.p for d in found])
    found = [replace(d, p_corrected=p) for d, p in zip(found, corrected, strict=True)]
    if len(found) < 2:
        return found
    return [*found, centered_difference(found, pairs, a)]


def centered_difference(
    found: list[Difference],
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    entries: Mapping[str, Any],
) -> Difference:
    """The mean of the centred scores (CORE, ChatCORE) over what both have: examples are resampled
    within each task.
    """
    verdicts = []
    for difference in found:
        baseline = entries[difference.task].get("baseline", 0.0)
        verdicts.append([centered(values, baseline) for values in pairs[difference.task]])
    resampled = [bootstrap_means(b - a, 1337 + i) for i, (a, b) in enumerate(verdicts)]
    means = np.mean(resampled, axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    p = bootstrap_p(means)
    return Difference(
        task="mean, centred",
        n=sum(difference.n for difference in found),
        a=float(np.mean([a.mean() for a, _ in verdicts])),
        b=float(np.mean([b.mean() for _, b in verdicts])),
        low=float(low),
        high=float(high),
        p=p,
        p_corrected=p,
    )


def render(differences: list[Difference], alpha: float) -> str:
    """Aligned lines for people, the verdict in words at the end of each."""
    width = max(len(d.task) for d in differences)
    lines = [
        f"{'task':<{width}}       n       A       B   B - A   95% interval         p (corrected)"
    ]
    for d in differences:
        if d.p_corrected < alpha:
            verdict = "B is better" if d.difference > 0 else "A is better"
        else:
            verdict = "within noise"
        lines.append(
            f"{d.task:<{width}}  {d.n:6d}  {d.a:6.4f}  {d.b:6.4f}  {d.difference:+.4f}  "
            f"[{d.low:+.4f}, {d.high:+.4f}]"
            f"  {d.p:7.2g} ({d.p_corrected:.2g})  {verdict}"
        )
    return "\n".join(lines)


def compare(cfg: CompareConfig) -> None:
    """`nanochat compare RUN_A RUN_B`. Raises ValueError when there is nothing to compare."""
    a, b = find_results(cfg.run_a), find_results(cfg.run_b)
    differences = compare_results(a["tasks"], b["tasks"])
    if not differences:
        raise ValueError(
            f"nothing to compare: {a['name']} has {', '.join(a['tasks']) or 'no tasks'}, "
            f"{b['name']} has "
            f"{', '.join(b['tasks']) or 'no tasks'}; evaluate both on the same tasks"
        )
    print(f"A: {a['name']}\nB: {b['name']}\n\n{render(differences, cfg.alpha)}")
    only = sorted(set(a["tasks"]) ^ set(b["tasks"]))
    if only:
        print(f"evaluated in one of them only: {', '.join(only)}")
