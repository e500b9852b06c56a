"""CORE, the base model's score (arXiv 2406.11794): 22 few-shot tasks, each centred on blind
guessing.

Three kinds of task. `multiple_choice`: one query, several continuations. `schema`: several
contexts, one continuation. Both are right when the lowest mean negative log-likelihood of the
continuation belongs to the gold option. `language_modeling`: right when every token of the
continuation is the model's first choice.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from nanochat.eval.core_bundle import CoreTask
from nanochat.eval.core_bundle import read_bundle as read_bundle
from nanochat.eval.loglikelihood import Score, ScoredRow, common_prefix, score_groups
from nanochat.eval.ranks import gather_in_order
from nanochat.eval.results import scored
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer

# Kind of task -> the fields of a row that are texts, and the field that holds the options.
FIELDS: dict[str, tuple[tuple[str, ...], str]] = {
    "multiple_choice": (("query",), "choices"),
    "schema": (("continuation",), "context_options"),
    "language_modeling": (("context", "continuation"), ""),
}
SHUFFLE_SEED = 1337
FEWSHOT_SEED = 1234


def read_examples(task: CoreTask, max_per_task: int = -1) -> list[dict[str, Any]]:
    """The task's rows, shuffled with a fixed seed and only then cut to `max_per_task` (negative:
    all). ValueError with file and line for one that cannot be asked.
    """
    rows: list[dict[str, Any]] = []
    with open(task.path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    rows.append(_checked_row(task.kind, json.loads(line)))
                except ValueError as error:
                    raise ValueError(f"{task.path}:{number}: {error}") from None
    if not rows:
        raise ValueError(f"{task.path}: has no examples; fetch the bundle again")
    random.Random(SHUFFLE_SEED).shuffle(rows)
    return rows[:max_per_task] if max_per_task > 0 else rows


def _checked_row(kind: str, row: Any) -> dict[str, Any]:
    texts, options = FIELDS[kind]
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in texts):
        raise ValueError(f"must be an object with the text(s) {', '.join(texts)}")
    if "continuation" in texts and not row["continuation"].strip():
        raise ValueError("continuation is empty: there would be nothing to score")
    if options:
        choices, gold = row.get(options), row.get("gold")
        if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
            raise ValueError(f"{options} must be a list of texts")
        if type(gold) is not int or not 0 <= gold < len(choices):
            raise ValueError(
                f"gold={gold!r} must be the number of one of {len(choices)} {options}, from 0"
            )
    return row


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
    return min(means) < math.inf and means.index(min(means)) == gold


def evaluate_task(
    model: GPT,
    tokenizer: Tokenizer,
    task: CoreTask,
    examples: Sequence[dict[str, Any]],
    world: World,
    *,
    max_tokens: int | None = None,
) -> list[bool]:
    """Right or wrong for each of the task's examples, dealt out to the ranks, the same list on
    every rank.
    """
    mine = range(world.rank, len(examples), world.world_size)
    prompts: list[str] = []
    golds, counts = [], []
    for index in mine:
        shots = fewshot_examples(examples, index, task.num_fewshot)
        texts, gold = render_prompts(task, examples[index], shots)
        prompts += texts
        golds.append(gold)
        counts.append(len(texts))
    tokens = tokenizer.encode(prompts, prepend=tokenizer.get_bos_token_id()) if prompts else []
    rest = iter(tokens)
    groups = [build_rows(task, list(islice(rest, count))) for count in counts]
    with Progress(sum(map(len, groups)), f"CORE {task.label}", enabled=world.is_main) as progress:
        scores = score_groups(model, groups, max_tokens, on_done=progress.advance)
    own = [is_correct(task, group, gold) for group, gold in zip(scores, golds, strict=True)]
    return gather_in_order(world, own, len(examples))


def evaluate_core(
    model: GPT,
    tokenizer: Tokenizer,
    world: World,
    tasks: Sequence[CoreTask],
    max_per_task: int = -1,
    *,
    max_tokens: int | None = None,
    on_result: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate tasks of a bundle -> label -> entry (see results.scored), the same on every rank.

    CORE is the mean of their centred scores, when they are all of the bundle's. Raises ValueError
    for a row that cannot be asked, before any is.
    """
    examples = {task.label: read_examples(task, max_per_task) for task in tasks}
    entries = {}
    for task in tasks:
        started = time.monotonic()
        correct = evaluate_task(
            model, tokenizer, task, examples[task.label], world, max_tokens=max_tokens
        )
        wall_s = time.monotonic() - started
        entries[task.label] = scored(correct, task.baseline, wall_s=wall_s)
        if on_result is not None:
            on_result(task.label, entries[task.label])
    return entries
