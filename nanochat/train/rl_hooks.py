"""What reinforcement learning does around its steps: log what the answers earned, examine on
held-out questions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.eval.generative import Answered, AnswerSampling, evaluate_generative
from nanochat.eval.results import scored
from nanochat.eval.suite import choose_problems
from nanochat.gpt import GPT
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.train.hooks import PeriodicHook
from nanochat.train.rollouts import RolloutSource
from nanochat.train.trainer import Hook, StepStats, Trainer


class RolloutLog(Hook):
    """Reward, length, entropy, KL and the like of every step's answers."""

    def __init__(self, source: RolloutSource, log: MetricLog) -> None:
        self.source, self.log = source, log

    def after_step(self, trainer: Trainer, stats: StepStats) -> None:
        self.log.log(stats.step, **self.source.stats)


class Examination(PeriodicHook):
    """pass@1 to pass@k on held-out questions, the same ones with the same seeds each time."""

    def __init__(
        self,
        source: RolloutSource,
        tasks: dict[str, Task],
        n_questions: int,
        sampling: AnswerSampling,
        every: int,
        log: MetricLog,
    ) -> None:
        super().__init__(every)
        self.source = source
        self.tasks = tasks
        self.n_questions = n_questions
        self.sampling = sampling
        self.log = log
        self.before: dict[str, float] = {}
        self.last: dict[str, float] = {}

    @property
    def scores(self) -> dict[str, float]:
        before = {f"{name} before": value for name, value in self.before.items()}
        return {**self.last, **before}

    def recall(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Take the first and last results from the log of the part of the run before a resume."""
        found = [
            {n: v for n, v in row.items() if n.startswith("pass@")}
            for row in history
            if "pass@1" in row
        ]
        if found:
            self.before, self.last = found[0], found[-1]

    def evaluate(self, trainer: Trainer, model: GPT, world: World) -> None:
        """Ask, judge, log."""
        engine, answers = self.source.engine(), {}
        for name, task in self.tasks.items():
            problems = choose_problems(len(task), self.n_questions)
            answers[name] = evaluate_generative(engine, task, world, problems, self.sampling)
        engine.trim()
        self.last = pass_rates([answer for each in answers.values() for answer in each])
        if len(answers) > 1:
            self.last |= {
                f"pass@1 of {name}": pass_rates(each)["pass@1"] for name, each in answers.items()
            }
        self.before = self.before or self.last
        trainer.scores.setdefault(trainer.step, {})["pass@1"] = self.last["pass@1"]
        self.log.log(trainer.step, **self.last)
        if self.source.samples:
            self.log.log(trainer.step, samples=self.source.samples)
        if world.is_main:
            k = self.sampling.num_samples
            rate, low, high = (self.last[name] for name in ("pass@1", "pass@1_low", "pass@1_high"))
            more = f", pass@{k} {self.last[f'pass@{k}']:.4f}" if k > 1 else ""
            print(
                f"step {trainer.step}: pass@1 {rate:.4f} [{low:.4f}, {high:.4f}]{more}",
                file=sys.stderr,
            )


def pass_rates(answers: list[Answered]) -> dict[str, float]:
    """pass@1 with its 95% interval over questions, and pass@2, 4 ... k for k answers to each."""
    k = len(answers[0].correct)
    entry = scored([answer.pass_at(1) for answer in answers], 0.0)
    rates = {"pass@1": entry["score"], "pass@1_low": entry["low"], "pass@1_high": entry["high"]}
    for n in [n for n in (2, 4, 8, 16, 32, 64) if n < k] + [k] * (k > 1):
        rates[f"pass@{n}"] = sum(answer.pass_at(n) for answer in answers) / len(answers)
    return rates
