"""Rollouts as a source of batches: the engine answers questions, the task rewards the answers, and
the better ones get more weight.

A step asks `examples_per_step` questions and draws `num_samples` answers to each. Question number p
of a run, and the seed its answers are drawn with, follow from the run's seed alone; rank r of W
takes the questions p % W == r. So the order does not depend on the number of ranks, and a resumed
run asks and draws what the uninterrupted one would have.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.engine import Completion, Engine
from nanochat.eval.generative import JUDGES, AnswerSampling, complete_all, fit_prompt
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tasks.base import Conversation, Task
from nanochat.tokenizer import Tokenizer
from nanochat.train.advantages import Baseline, advantages, clipped_weights, kl_estimate, kl_weights
from nanochat.train.frozen_copy import follow, in_precision
from nanochat.train.rl_configs import RLConfig
from nanochat.train.scoring import micro_batches, score

ROLLOUT_BATCH = {"cpu": 64, "cuda": 256, "mps": 64}
SHOWN_ANSWERS = 4  # of each question, kept for the report


@dataclass(frozen=True)
class RolloutOptions:
    """What a step draws and how it is weighed; fields as in RLConfig. `budget_tokens`: of a
    micro-batch.
    """

    examples_per_step: int = 16
    num_samples: int = 16
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    advantage: Baseline = "mean"
    updates_per_batch: int = 1
    clip_ratio: float = 0.2
    kl_coef: float = 0.0
    seed: int = 42
    batch_size: int = 32
    budget_tokens: int = 8192

    @classmethod
    def of(cls, cfg: RLConfig, device_type: str, budget_tokens: int) -> RolloutOptions:
        """What of a run's settings concerns the rollouts."""
        own = {item.name for item in fields(cls)} & {item.name for item in fields(cfg)}
        return cls(
            **{name: getattr(cfg, name) for name in own},
            batch_size=cfg.rollout_batch_size or ROLLOUT_BATCH[device_type],
            budget_tokens=budget_tokens,
        )

    @property
    def needs_scores(self) -> bool:
        """Whether weights follow from log-probabilities too; else those of one answer a question
        are logged.
        """
        return self.updates_per_batch > 1 or self.kl_coef > 0


@dataclass
class Rollout:
    """One answer. `chosen` is 1 on the tokens that the model chose, 0 on the prompt and on the
    output of tools.

    It was drawn `copies` times; `advantage` is the sum over them. `logprobs` (when it was drawn)
    and `reference` (of the starting model) belong to the chosen tokens, in order.
    """

    question: int
    n_prompt: int
    tokens: list[int]
    chosen: list[int]
    text: str
    finish_reason: str
    reward: float = 0.0
    advantage: float = 0.0
    copies: int = 1
    logprobs: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, question: int, prompt: Sequence[int], completion: Completion) -> Rollout:
        """The token that ended the answer is part of it: when to stop is learned too."""
        end = [] if completion.stop_token is None else [completion.stop_token]
        tokens = [*prompt, *completion.ids, *end]
        chosen = [*[0] * len(prompt), *completion.mask, *[1] * len(end)]
        return cls(question, len(prompt), tokens, chosen, completion.text, completion.finish_reason)


class RolloutSource:
    """Batches of answers by the model as it is at that moment. `reference` is the starting model,
    for the KL; `world` one whose collectives may be broken off (`Interrupt.guarded`).

    `stats` holds the numbers of the newest answers, the same on every rank; `samples` some of this
    rank's own.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        task: Task,
        world: World,
        options: RolloutOptions,
        reference: GPT,
    ) -> None:
        if len(task) == 0:
            raise ValueError(f"{task.name}: has no questions to learn from")
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.world = world
        self.options = options
        self.reference = reference
        compute = model.compute_dtype or model.lm_head.weight.dtype
        # Decoding reads every weight for every token: a copy in the compute type is up to four
        # times as fast.
        self._actor = (
            model if compute == model.lm_head.weight.dtype else in_precision(model, compute)
        )
        step_tokens = 8192 if model.get_device().type == "cuda" else 512
        context, n_rows = model.config.sequence_len, options.batch_size
        self._engine = Engine(
            self._actor,
            tokenizer,
            max_running=n_rows,
            max_step_tokens=max(step_tokens, n_rows),
            cache_tokens=n_rows * min(context, 2 * options.max_new_tokens) + context,
        )
        self.n_uses = 0  # batches given out
        self.rollouts: list[Rollout] = []
        self.scale = 1.0  # tokens computed / tokens drawn, of the answers that count
        self.stats: dict[str, float] = {}
        self.samples: list[dict[str, Any]] = []
        self._order: tuple[int, list[int]] = (-1, [])

    # --- the Trainer's protocol

    def next_step(self) -> list[Batch]:
        """This rank's micro-batches of the next optimizer step; empty when its answers were all
        equally good.
        """
        fresh = self.n_uses % self.options.updates_per_batch == 0
        if fresh:
            self.rollouts = self._draw(self.n_uses // self.options.updates_per_batch)
        self.n_uses += 1
        return self._batches(fresh)

    def state_dict(self) -> dict[str, Any]:
        """Plain values. Between two updates on the same answers these are part of it."""
        unfinished = self.n_uses % self.options.updates_per_batch != 0
        rollouts = [asdict(rollout) for rollout in self.rollouts] if unfinished else []
        return {"n_uses": self.n_uses, "scale": self.scale, "rollouts": rollouts}

    def load_state_dict(self, states: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
        """The state of every rank (or the only one), from any number of ranks."""
        states = [states] if isinstance(states, dict) else states
        self.n_uses, self.scale = states[0]["n_uses"], states[0]["scale"]
        everything = [Rollout(**rollout) for state in states for rollout in state["rollouts"]]
        everything.sort(key=lambda rollout: rollout.question)
        self.rollouts = [
            r for r in everything if r.question % self.world.world_size == self.world.rank
        ]

    # --- drawing

    def engine(self) -> Engine:
        """The engine, with the weights as they are now and nothing in its cache that older ones
        computed.
        """
        if self._actor is not self.model:
            follow(self._actor, self.model)
        self._engine.trim()
        return self._engine

    def conversation(self, question: int) -> Conversation:
        """Question number `question` of the run: each pass over the task is shuffled on its own."""
        epoch, at = divmod(question, len(self.task))
        if self._order[0] != epoch:
            order = list(range(len(self.task)))
            random.Random(f"{self.options.seed}:{epoch}").shuffle(order)
            self._order = epoch, order
        return self.task[self._order[1][at]]

    def _draw(self, batch: int) -> list[Rollout]:
        started = time.perf_counter()
        options, world = self.options, self.world
        first = batch * options.examples_per_step
        numbers = [
            n
            for n in range(first, first + options.examples_per_step)
            if n % world.world_size == world.rank
        ]
        conversations = [self.conversation(number) for number in numbers]
        context = self.model.config.sequence_len
        rendered = [
            self.tokenizer.render_for_completion(conversation) for conversation in conversations
        ]
        prompts = [fit_prompt(prompt, context, options.max_new_tokens) for prompt in rendered]
        seeds = [
            random.Random(f"{options.seed}:{batch}:{number}").getrandbits(62) for number in numbers
        ]
        sampling = AnswerSampling(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k or None,
            num_samples=options.num_samples,
            min_p=options.min_p,
        )
        tools = [bool(conversation.get("tool", True)) for conversation in conversations]
        engine = self.engine()
        with Progress(len(prompts), "rollouts", enabled=False) as progress:
            completions = complete_all(engine, prompts, seeds, sampling, progress, tools)
        engine.trim()  # the memory is wanted for training
        rollouts = [
            Rollout.of(number, prompt, completion)
            for number, prompt, own in zip(numbers, prompts, completions, strict=True)
            for completion in own
        ]
        self._reward(rollouts, conversations)
        distinct = merged(rollouts)
        self._measure(rollouts, distinct, time.perf_counter() - started)
        return distinct

    def _reward(self, rollouts: list[Rollout], conversations: list[Conversation]) -> None:
        """Rewards, and advantages within the answers to each question."""
        n = self.options.num_samples
        asked = [conversation for conversation in conversations for _ in range(n)]
        with ThreadPoolExecutor(
            JUDGES
        ) as pool:  # judging may mean running a program and waiting for it
            rewards = list(
                pool.map(self.task.reward, asked, [rollout.text for rollout in rollouts])
            )
        for at in range(0, len(rollouts), n):
            group = rollouts[at : at + n]
            worth = advantages(rewards[at : at + n], self.options.advantage)
            for rollout, reward, advantage in zip(group, rewards[at : at + n], worth, strict=True):
                rollout.reward, rollout.advantage = reward, advantage
        self.samples = [
            self._sample(asked[at], rollouts[at])
            for at in range(len(rollouts))
            if at % n < SHOWN_ANSWERS
        ]

    def _sample(self, conversation: Conversation, rollout: Rollout) -> dict[str, Any]:
        question = [
            message["content"] for message in conversation["messages"] if message["role"] == "user"
        ][-1]
        answer = self.tokenizer.decode(rollout.tokens[rollout.n_prompt :])
        return {"prompt": question, "completion": answer, "reward": rollout.reward}

    # --- weighing

    def _measure(self, rollouts: list[Rollout], distinct: list[Rollout], seconds: float) -> None:
        """Log-probabilities under the model and the starting model, and the numbers of the step
        over all ranks.
        """
        n = self.options.num_samples
        entropy = kl = n_scored = 0.0
        for batch, own in self._rows(distinct if self.options.needs_scores else rollouts[::n]):
            scored = score(self.model, batch)
            logprobs, entropies = scored.logprobs, scored.entropies
            assert entropies is not None
            reference = score(self.reference, batch).logprobs
            counts = [sum(rollout.chosen) for rollout in own]
            copies = _per_token(
                [[float(r.copies)] * n_tokens for r, n_tokens in zip(own, counts, strict=True)],
                batch,
            )
            entropy += float((copies * entropies).sum())
            kl += float((copies * kl_estimate(logprobs, reference)).sum())
            n_scored += float(copies.sum())
            for rollout, values, others in zip(
                own, logprobs.split(counts), reference.split(counts), strict=True
            ):
                rollout.logprobs, rollout.reference = values.tolist(), others.tolist()
        groups = [rollouts[at : at + n] for at in range(0, len(rollouts), n)]
        useful = [rollout for rollout in distinct if rollout.advantage or self.options.kl_coef]
        sums = {
            "weighed": sum(sum(rollout.chosen) * rollout.copies for rollout in useful),
            "distinct": sum(sum(rollout.chosen) for rollout in useful),
            "answers": len(rollouts),
            "questions": len(groups),
            "reward": sum(rollout.reward for rollout in rollouts),
            "length_tokens": sum(len(r.tokens) - r.n_prompt for r in rollouts),
            "cut_off": sum(rollout.finish_reason == "length" for rollout in rollouts),
            "informative": sum(any(rollout.advantage for rollout in group) for group in groups),
            "entropy": entropy,
            "kl": kl,
            "scored": n_scored,
        }
        everybody = self.world.gather_objects(sums)
        total = {name: sum(each[name] for each in everybody) for name in sums}
        per = {
            "informative": "questions",
            "entropy": "scored",
            "kl": "scored",
            "distinct": "weighed",
        }
        shown = [name for name in sums if name not in ("answers", "questions", "scored", "weighed")]
        self.stats = {name: total[name] / max(1, total[per.get(name, "answers")]) for name in shown}
        self.scale = self.stats["distinct"]
        self.stats["rollout_s"] = round(seconds, 3)

    def _rows(
        self, rollouts: Sequence[Rollout], weighed: bool = False
    ) -> list[tuple[Batch, list[Rollout]]]:
        """Micro-batches of rollouts on the device, the chosen tokens weighing 1, or their
        advantage.
        """
        rows = [
            (r.tokens, [(r.advantage if weighed else 1.0) * c for c in r.chosen]) for r in rollouts
        ]
        batches = micro_batches(rows, self.options.budget_tokens, self.tokenizer.get_bos_token_id())
        device = self.model.get_device()
        return [
            (batch.to(device), [rollouts[number] for number in numbers])
            for batch, numbers in batches
        ]

    def _batches(self, fresh: bool) -> list[Batch]:
        options = self.options
        useful = [r for r in self.rollouts if r.advantage or options.kl_coef]
        if not options.needs_scores:
            rows = self._rows(useful, weighed=True)
            return [
                Batch(batch.input_ids, batch.targets, batch.weights * self.scale)
                for batch, _ in rows
            ]
        batches = []
        for batch, own in self._rows(useful):
            old = _per_token([r.logprobs for r in own], batch)
            logprobs = old if fresh else score(self.model, batch).logprobs
            advantage, copies = (
                _per_token(
                    [[value] * sum(r.chosen) for r, value in zip(own, values, strict=True)], batch
                )
                for values in ([r.advantage for r in own], [float(r.copies) for r in own])
            )
            weights = clipped_weights(advantage, logprobs, old, options.clip_ratio)
            weights += copies * kl_weights(
                logprobs, _per_token([r.reference for r in own], batch), options.kl_coef
            )
            batch.weights[batch.weights != 0] = weights * self.scale
            batches.append(batch)
        return batches


def merged(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Answers to a question that are the same token for token as one, with the sum of their
    advantages.

    A model that is sure of most of its words says the same thing many times: in letter counting
    half of the answers need not be computed. The Trainer divides by the number of tokens it sees,
    so the weights are scaled by the share of them that is left, over all ranks: the update is the
    one of all answers.
    """
    found: dict[tuple[Any, ...], Rollout] = {}
    for rollout in rollouts:
        key = rollout.question, tuple(rollout.tokens), tuple(rollout.chosen)
        seen = found.get(key)
        both = (
            None
            if seen is None
            else (seen.advantage + rollout.advantage, seen.copies + rollout.copies)
        )
        found[key] = (
            rollout
            if seen is None or both is None
            else replace(seen, advantage=both[0], copies=both[1])
        )
    return list(found.values())


def _per_token(values: Sequence[Sequence[float]], batch: Batch) -> Tensor:
    """Lists of the rollouts' chosen tokens as one tensor (N) in the order of the batch's rows."""
    flat = [value for own in values for value in own]
    return torch.tensor(flat, dtype=torch.float32, device=batch.weights.device)
