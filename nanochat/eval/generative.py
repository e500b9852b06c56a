"""Generative tasks: the model writes answers, the task judges them. All problems are in flight at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from nanochat.engine.engine import Engine
from nanochat.engine.request import Completion
from nanochat.engine.sequence import SamplingParams
from nanochat.eval.intervals import pass_at_k
from nanochat.eval.ranks import gather_in_order
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tasks.base import Conversation, Task

# Judging may mean running a program and waiting for it; the waiting is shared, not the processor.
JUDGES = 4


@dataclass(frozen=True)
class Answered:
    """One problem: which of its samples were right, and what they said."""

    correct: list[bool]
    texts: list[str]

    def pass_at(self, k: int) -> float:
        return pass_at_k(len(self.correct), sum(self.correct), k)


@dataclass(frozen=True, kw_only=True)
class AnswerSampling:
    """How answers are drawn. Temperature 0 is greedy; problem i is drawn with seed + i on any
    number of ranks.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int | None = 50
    num_samples: int = 1
    seed: int = 42
    min_p: float = 0.0


def fit_prompt(prompt: Sequence[int], context: int, max_new_tokens: int) -> list[int]:
    """A prompt that leaves room for an answer: when too long, <|bos|> and as much of its end as
    fits.
    """
    room = context - min(max_new_tokens, context // 4)
    return list(prompt) if len(prompt) <= room else [prompt[0], *prompt[len(prompt) - room + 1 :]]


def complete_all(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: AnswerSampling,
    progress: Progress,
    tools: Sequence[bool] | None = None,
) -> list[list[Completion]]:
    """All prompts through the engine together -> the completions of each, in order. `tools`: who
    may use one (all).
    """
    requests = []
    for prompt, seed, tool in zip(prompts, seeds, tools or [True] * len(prompts), strict=True):
        fitted = fit_prompt(prompt, engine.model.config.sequence_len, sampling.max_new_tokens)
        params = SamplingParams(
            temperature=sampling.temperature,
            top_k=sampling.top_k or None,
            min_p=sampling.min_p or None,
            max_tokens=sampling.max_new_tokens,
            seed=seed,
            tools=tool,
        )
        requests.append(engine.submit(fitted, params, sampling.num_samples))
    return engine.complete(requests, on_done=progress.advance)


def _try_again(
    engine: Engine,
    task: Task,
    conversations: Sequence[Conversation],
    texts: list[list[str]],
    seeds: Sequence[int],
    sampling: AnswerSampling,
) -> None:
    """Put second answers in the place of first ones, where the task asks for them."""
    again = [
        (row, column, asked)
        for row, conversation in enumerate(conversations)
        for column, text in enumerate(texts[row])
        if (asked := task.second_try(conversation, text)) is not None
    ]
    if not again:
        return
    prompts = [engine.tokenizer.render_for_completion(asked) for _, _, asked in again]
    own_seeds = [seeds[row] for row, _, _ in again]
    tools = [bool(asked.get("tool", True)) for _, _, asked in again]
    once = replace(sampling, num_samples=1)
    with Progress(len(prompts), f"{task.name}, asked once more", enabled=False) as progress:
        found = complete_all(engine, prompts, own_seeds, once, progress, tools)
    for (row, column, _), completions in zip(again, found, strict=True):
        texts[row][column] = completions[0].text


def judge(
    task: Task, conversations: Sequence[Conversation], texts: Sequence[Sequence[str]]
) -> list[Answered]:
    jobs = [
        (conversation, text)
        for conversation, own in zip(conversations, texts, strict=True)
        for text in own
    ]
    with ThreadPoolExecutor(JUDGES) as pool:
        verdicts = iter(list(pool.map(lambda job: bool(task.evaluate(*job)), jobs)))
    return [Answered([next(verdicts) for _ in own], list(own)) for own in texts]


def evaluate_generative(
    engine: Engine,
    task: Task,
    world: World,
    problems: Sequence[int],
    sampling: AnswerSampling | None = None,
) -> list[Answered]:
    """Answers to the task's rows in `problems`, dealt out to the ranks, the same list on every
    rank.

    Raises ValueError where the task cannot judge (HumanEval without a sandbox).
    """
    sampling = sampling or AnswerSampling()
    numbers = range(world.rank, len(problems), world.world_size)
    conversations = [task[problems[number]] for number in numbers]
    prompts = [
        engine.tokenizer.render_for_completion(conversation) for conversation in conversations
    ]
    seeds = [sampling.seed + number for number in numbers]
    with Progress(len(prompts), task.name, enabled=world.is_main) as progress:
        tools = [bool(conversation.get("tool", True)) for conversation in conversations]
        completions = complete_all(engine, prompts, seeds, sampling, progress, tools)
    texts = [[completion.text for completion in row] for row in completions]
    _try_again(engine, task, conversations, texts, seeds, sampling)
    own = judge(task, conversations, texts)
    return gather_in_order(world, own, len(problems))
