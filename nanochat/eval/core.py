"""CORE, the base model's score (arXiv 2406.11794): 22 few-shot tasks, each centred on blind
guessing.

Three kinds of task. `multiple_choice`: one query, several continuations. `schema`: several
contexts, one continuation. Both are right when the lowest mean negative log-likelihood of the
continuation belongs to the gold option. `language_modeling`: right when every token of the
continuation is the model's first choice.
"""

from __future__ import annotations

import csv
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.eval.loglikelihood import Score, ScoredRow, common_prefix, score_groups
from nanochat.eval.results import scored
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.run_dir import base_dir
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer

KINDS = ("multiple_choice", "schema", "language_modeling")
SHUFFLE_SEED = 1337
FEWSHOT_SEED = 1234


@dataclass(frozen=True)
class CoreTask:
    """One line of the bundle's `core.yaml`. `baseline` is the score of guessing, in [0, 1]."""

    label: str
    path: Path
    kind: str
    num_fewshot: int
    delimiter: str
    baseline: float


@dataclass(frozen=True)
class CoreTaskResult:
    """`correct` holds one bool per example, in the order of the seeded shuffle."""

    label: str
    baseline: float
    correct: list[bool]
    wall_s: float = field(default=0.0, compare=False)

    @property
    def accuracy(self) -> float:
        return sum(self.correct) / len(self.correct)

    @property
    def centered(self) -> float:
        return (self.accuracy - self.baseline) / (1 - self.baseline)


def read_bundle(bundle: Path | str | None = None) -> list[CoreTask]:
    """The tasks of an eval bundle, by default `<base>/eval_bundle`.

    Raises ValueError naming every file that is missing and every task without a baseline.
    """
    import yaml

    root = Path(bundle) if bundle else base_dir() / "eval_bundle"
    if not (root / "core.yaml").is_file():
        raise ValueError(
            f"eval_bundle: {root} has no core.yaml; to get it, run `bash "
            "scripts/download_data.sh` on a machine with "
            "internet, or name the folder with --eval-bundle"
        )
    config = yaml.safe_load((root / "core.yaml").read_text(encoding="utf-8"))
    baselines = _read_baselines(root / "eval_meta_data.csv")
    tasks, problems = [], []
    for entry in config["icl_tasks"]:
        label, path = entry["label"], root / "eval_data" / entry["dataset_uri"]
        if not path.is_file():
            problems.append(f"{label}: {path} is missing")
        if label not in baselines:
            problems.append(f"{label}: no baseline in eval_meta_data.csv")
        if entry["icl_task_type"] not in KINDS:
            problems.append(
                f"{label}: icl_task_type {entry['icl_task_type']!r} is none of {', '.join(KINDS)}"
            )
        delimiter = entry.get("continuation_delimiter", " ")
        shots = int(entry["num_fewshot"][0])
        tasks.append(
            CoreTask(
                label, path, entry["icl_task_type"], shots, delimiter, baselines.get(label, 0.0)
            )
        )
    if problems:
        raise ValueError(
            f"eval_bundle: {root} is not whole; fetch it again:\n  " + "\n  ".join(problems)
        )
    return tasks


def _read_baselines(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {
            row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)
        }


def read_examples(task: CoreTask, max_per_task: int = -1) -> list[dict[str, Any]]:
    """The task's rows, shuffled with a fixed seed and only then cut to `max_per_task` (negative:
    all).
    """
    with open(task.path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    random.Random(SHUFFLE_SEED).shuffle(rows)
    return rows[:max_per_task] if max_per_task > 0 else rows


def fewshot_examples(
    rows: Sequence[dict[str, Any]], index: int, count: int
) -> list[dict[str, Any]]:
    """`count` other rows, drawn from the rows under evaluation: a smaller subset never looks
    outside itself.
    """
    others = [i for i in range(len(rows)) if i != index]
    return [
        rows[i] for i in random.Random(FEWSHOT_SEED + index).sample(others, min(count, len(others)))
    ]


def render_prompts(
    task: CoreTask, row: dict[str, Any], shots: Sequence[dict[str, Any]]
) -> tuple[list[str], int]:
    """The texts that are compared and the index of the right one.

    For language modelling: [without the continuation, with it], and 1.
    """
    d = task.delimiter
    if task.kind == "multiple_choice":
        lead = "".join(f"{s['query']}{d}{s['choices'][s['gold']]}\n\n" for s in shots)
        return [f"{lead}{row['query']}{d}{choice}" for choice in row["choices"]], row["gold"]
    if task.kind == "schema":
        lead = "".join(
            f"{s['context_options'][s['gold']]}{d}{s['continuation']}\n\n" for s in shots
        )
        return [
            f"{lead}{option}{d}{row['continuation']}" for option in row["context_options"]
        ], row["gold"]
    lead = "".join(f"{s['context'].strip()}{d}{s['continuation']}\n\n" for s in shots)
    prompt = f"{lead}{row['context'].strip()}{d}"
    # Stripped: a trailing space would be a token of its own, which never occurs before a word in
    # running text.
    return [prompt.strip(), f"{prompt}{row['continuation']}"], 1


def build_rows(task: CoreTask, tokens: list[list[int]]) -> list[ScoredRow]:
    """Mark the continuation in tokenized prompts (in `render_prompts`' order)."""
    if task.kind == "language_modeling":
        without, whole = tokens
        # Usually all of `without`; a tokenizer may merge across the seam, then the first differing
        # token starts it.
        return [ScoredRow(whole, max(1, common_prefix([without, whole])), len(whole))]
    if task.kind == "multiple_choice":
        start = common_prefix(tokens)
        return [ScoredRow(ids, start, len(ids)) for ids in tokens]
    common = common_prefix([ids[::-1] for ids in tokens])
    return [ScoredRow(ids, max(1, len(ids) - common), len(ids)) for ids in tokens]


def is_correct(task: CoreTask, scores: Sequence[Score], gold: int) -> bool:
    if task.kind == "language_modeling":
        return scores[0].greedy
    # An empty continuation (a choice that is the beginning of another) has no likelihood and cannot
    # win.
    means = [score.mean_nll if score.n_tokens else math.inf for score in scores]
    return means.index(min(means)) == gold


def evaluate_task(
    model: GPT,
    tokenizer: Tokenizer,
    task: CoreTask,
    world: World,
    max_per_task: int = -1,
    max_tokens: int | None = None,
    share_prefixes: bool = True,
) -> CoreTaskResult:
    """Score one task; the examples are dealt out to the ranks and every rank returns the whole
    result.
    """
    started = time.monotonic()
    examples = read_examples(task, max_per_task)
    mine = range(world.rank, len(examples), world.world_size)
    prompts: list[str] = []
    golds, counts = [], []
    for index in mine:
        texts, gold = render_prompts(
            task, examples[index], fewshot_examples(examples, index, task.num_fewshot)
        )
        prompts += texts
        golds.append(gold)
        counts.append(len(texts))
    tokens = tokenizer.encode(prompts, prepend=tokenizer.get_bos_token_id()) if prompts else []
    groups, first = [], 0
    for count in counts:
        groups.append(build_rows(task, tokens[first : first + count]))
        first += count
    with Progress(sum(map(len, groups)), f"CORE {task.label}", enabled=world.is_main) as progress:
        scores = score_groups(model, groups, max_tokens, share_prefixes, on_done=progress.advance)
    own = [(i, is_correct(task, s, gold)) for i, s, gold in zip(mine, scores, golds, strict=True)]
    everyone = sorted(pair for part in world.gather_objects(own) for pair in part)
    return CoreTaskResult(
        task.label, task.baseline, [right for _, right in everyone], time.monotonic() - started
    )


def evaluate_core(
    model: GPT,
    tokenizer: Tokenizer,
    world: World,
    max_per_task: int = -1,
    bundle: Path | str | None = None,
    labels: Sequence[str] | None = None,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """CORE over the bundle's tasks, or those in `labels` -> {"core", "tasks": {label: entry as in
    results.scored}}.

    Raises ValueError for an incomplete bundle or an unknown label.
    """
    tasks = read_bundle(bundle)
    unknown = set(labels or ()) - {task.label for task in tasks}
    if unknown:
        known = ", ".join(task.label for task in tasks)
        raise ValueError(f"tasks: unknown {', '.join(sorted(unknown))}; the bundle has {known}")
    results = [
        evaluate_task(model, tokenizer, task, world, max_per_task, max_tokens)
        for task in tasks
        if not labels or task.label in labels
    ]
    table = {r.label: scored(r.correct, r.baseline, wall_s=r.wall_s) for r in results}
    return {
        "core": sum(r.centered for r in results) / len(results),
        "tasks": table,
        "max_per_task": max_per_task,
    }
