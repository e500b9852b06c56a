"""One run over some chat tasks, whatever their kind."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from nanochat.engine import Engine
from nanochat.eval.choice import evaluate_choice
from nanochat.eval.generative import Answered, AnswerSampling, evaluate_generative
from nanochat.eval.intervals import wilson
from nanochat.eval.results import scored
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer

SUBSET_SEED = 1337
SHOWN_SAMPLES = 3


def choose_problems(n: int, max_problems: int | None) -> list[int]:
    """Indices of the problems: all in order, or a fixed random subset (data sets are often sorted
    by subject).
    """
    if max_problems is None or max_problems >= n:
        return list(range(n))
    order = list(range(n))
    random.Random(SUBSET_SEED).shuffle(order)
    return order[:max_problems]


def run_chat_eval(
    model: GPT,
    tokenizer: Tokenizer,
    tasks: dict[str, Task],
    world: World,
    *,
    sampling: AnswerSampling | None = None,
    batch_size: int = 32,
    max_problems: int | None = None,
    on_result: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate `tasks` -> name -> entry (see results.scored), the same on every rank. ValueError
    for a task without problems, before the work.
    """
    if empty := [name for name, task in tasks.items() if not len(task)]:
        raise ValueError(f"{', '.join(empty)}: no problems, so there is nothing to score")
    sampling = sampling or AnswerSampling()
    step_tokens = 8192 if model.get_device().type == "cuda" else 512
    engine = Engine(
        model, tokenizer, max_running=batch_size, max_step_tokens=max(step_tokens, batch_size)
    )
    results = {}
    for name, task in tasks.items():
        started = time.monotonic()
        problems = choose_problems(len(task), max_problems)
        if task.eval_type == "categorical":
            right = evaluate_choice(model, tokenizer, task, world, problems)
            entry = scored(right, task.baseline, eval_type=task.eval_type)
        else:
            answers = evaluate_generative(engine, task, world, problems, sampling)
            entry = scored([a.pass_at(1) for a in answers], task.baseline, eval_type=task.eval_type)
            entry |= _details(task, problems, answers, sampling)
            entry |= _parts(task, problems, answers)
        results[name] = {**entry, "problems": problems, "wall_s": time.monotonic() - started}
        if on_result is not None:
            on_result(name, results[name])
    return results


def _parts(task: Task, problems: list[int], answers: list[Answered]) -> dict[str, Any]:
    """Scores of the parts of a task with their intervals, where the task tells parts from one
    another; of the first answer to each problem.
    """
    found = task.breakdown([task[p] for p in problems], [a.texts[0] for a in answers])
    if found is None:
        return {}
    parts = {
        kind: {name: _part_score(verdicts) for name, verdicts in of.items()}
        for kind, of in found.parts.items()
    }
    return {"parts": parts, "counts": found.counts, "cases": found.cases}


def _part_score(verdicts: list[int]) -> dict[str, Any]:
    low, high = wilson(sum(verdicts), len(verdicts))
    n = len(verdicts)
    return {"score": sum(verdicts) / n, "low": low, "high": high, "n": n}


def _details(
    task: Task, problems: list[int], answers: list[Answered], sampling: AnswerSampling
) -> dict[str, Any]:
    """pass@k for k = 1, 2, 4 ... n, and a few right and wrong answers to read."""
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < sampling.num_samples]
    pass_at = {
        str(k): sum(answer.pass_at(k) for answer in answers) / len(answers)
        for k in (*ks, sampling.num_samples)
    }
    samples = []
    for verdict in (True, False):
        with_verdict = [i for i, answer in enumerate(answers) if answer.correct[0] == verdict]
        for i in with_verdict[:SHOWN_SAMPLES]:
            question = task[problems[i]]["messages"][-2]["content"]
            samples.append(
                {"prompt": question, "completion": answers[i].texts[0], "correct": verdict}
            )
    return {"pass_at": pass_at, "samples": samples}
