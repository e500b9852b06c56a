"""Rollouts: what is weighed, that the order is the run's alone, that old weights leave no trace."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny_rl import Letters, small_model, world

from nanochat.engine import Completion
from nanochat.gpt import GPT
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl_tasks, rollouts
from nanochat.train.advantages import kl_weights
from nanochat.train.frozen_copy import in_precision
from nanochat.train.objective import loss_sum_and_count
from nanochat.train.rollouts import RolloutOptions, RolloutSource
from nanochat.train.scoring import micro_batches, score

SMALL = RolloutOptions(
    examples_per_step=4, num_samples=4, max_new_tokens=6, batch_size=8, budget_tokens=200
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.byte_level()


@pytest.fixture
def model(tokenizer) -> GPT:
    return small_model(tokenizer)


def source(
    model, tokenizer, rank: int = 0, size: int = 1, task: Task | None = None, **options
) -> RolloutSource:
    reference = in_precision(model, torch.float32)
    return RolloutSource(
        model, tokenizer, task or Letters(), world(rank, size), replace(SMALL, **options), reference
    )


def test_scores_are_those_of_the_whole_forward_pass(model):
    rows = [(list(range(3, 3 + n)), [0.0] * 2 + [1.0] * (n - 2)) for n in (5, 9, 7)]
    for batch, _ in micro_batches(rows, 1000, 0):
        everything = model(batch.input_ids).log_softmax(-1)
        wanted = everything.gather(2, batch.targets[..., None])[..., 0][batch.weights != 0]
        scored = score(model, batch)
        assert torch.allclose(scored.logprobs, wanted, atol=1e-5)
        all_entropies = torch.distributions.Categorical(logits=everything).entropy()
        assert torch.allclose(scored.entropies, all_entropies[batch.weights != 0], atol=1e-5)


def test_micro_batches_hold_every_row_once_and_keep_to_the_budget():
    lengths = [5, 30, 7, 7, 12, 2, 50]
    rows = [
        ([number + 1] * n, [0.0] + [float(number + 1)] * (n - 1))
        for number, n in enumerate(lengths)
    ]
    batches = micro_batches(rows, 64, 0)
    assert sorted(number for _, numbers in batches for number in numbers) == list(range(len(rows)))
    for batch, numbers in batches:
        assert batch.input_ids.numel() <= 64 or len(numbers) == 1
        for row, number in enumerate(numbers):
            n = lengths[number] - 1
            assert batch.targets[row, :n].tolist() == [number + 1] * n
            assert batch.weights[row].tolist() == [number + 1.0] * n + [0.0] * (
                batch.weights.size(1) - n
            )


def test_only_what_the_model_chose_is_weighed(model, tokenizer, monkeypatch):
    """Prompt, tool output and padding weigh nothing; the answer and the token that ended it weigh
    the advantage.
    """
    called = Completion(
        ids=[11, 12, 13, 14],
        mask=[1, 0, 0, 1],
        finish_reason="stop",
        text="abcd",
        stop_token=tokenizer.encode_special("<|bos|>"),
    )
    cut = Completion(ids=[21, 22], mask=[1, 1], finish_reason="length", text="AB")

    def complete_all(engine, prompts, seeds, sampling, progress, tools):
        return [[called, cut] for _ in prompts]

    monkeypatch.setattr(rollouts, "complete_all", complete_all)
    own = source(model, tokenizer, examples_per_step=1, num_samples=2)
    (batch,) = own.next_step()
    prompt = tokenizer.render_for_completion(own.conversation(0))
    before = [0.0] * (len(prompt) - 1)
    n = len(prompt) + 4
    weights = [[*before, 0.5, 0.0, 0.0, 0.5, 0.5], [*before, -0.5, -0.5, 0.0, 0.0, 0.0]]
    assert batch.weights[:, :n].tolist() == weights and not batch.weights[:, n:].any()
    assert batch.targets[0, :n].tolist() == [*prompt[1:], 11, 12, 13, 14, called.stop_token]
    assert batch.input_ids[0, :n].tolist() == [*prompt, 11, 12, 13, 14]
    assert (
        own.stats["reward"] == 0.5
        and own.stats["cut_off"] == 0.5
        and own.stats["length_tokens"] == 3.5
    )


def test_questions_say_whether_the_calculator_may_be_used(model, tokenizer, monkeypatch):
    seen = []
    real = rollouts.complete_all
    monkeypatch.setattr(
        rollouts, "complete_all", lambda *args: seen.append(args[-1]) or real(*args)
    )
    train = rl_tasks.questions("world-counting|World-Counting-without-tool", 0).train
    own = source(model, tokenizer, task=train, num_samples=2, max_new_tokens=2)
    own.next_step()
    assert seen[0] == [own.conversation(number).get("tool", True) for number in range(4)]
    assert {own.conversation(number).get("tool", True) for number in range(20)} == {True, False}


def drawn(own: RolloutSource) -> list[tuple]:
    return [(r.question, r.tokens, r.chosen, r.reward, r.advantage) for r in own.rollouts]


def test_ranks_share_the_questions_of_one_order(model, tokenizer):
    alone, parts = (
        source(model, tokenizer),
        [source(model, tokenizer, rank, 3) for rank in range(3)],
    )
    for _ in range(2):
        for own in (alone, *parts):
            own.next_step()
        together = sorted((row for own in parts for row in drawn(own)), key=lambda row: row[0])
        assert together == drawn(alone)


def test_each_pass_asks_every_question_once_in_another_order(model, tokenizer):
    own = source(model, tokenizer)
    asked = [own.conversation(number)["messages"][0]["content"] for number in range(24)]
    assert len(set(asked[:12])) == len(set(asked[12:])) == 12 and asked[:12] != asked[12:]


def test_old_weights_leave_no_trace(model, tokenizer):
    """After a change of weights the answers are those of a source that never saw the old ones."""
    model.compute_dtype = torch.bfloat16  # decodes from a copy
    own = source(model, tokenizer)
    own.next_step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3
            )
    own.n_uses = 0
    own.next_step()
    fresh = source(model, tokenizer)
    fresh.next_step()
    assert drawn(own) == drawn(fresh)


def test_equal_rewards_make_no_batch(model, tokenizer, monkeypatch):
    monkeypatch.setattr(Letters, "reward", lambda *args: 1.0)
    own = source(model, tokenizer)
    assert own.next_step() == [] and own.stats["informative"] == 0.0


def test_second_use_weighs_by_the_clipped_ratio(model, tokenizer):
    own = source(model, tokenizer, updates_per_batch=2, clip_ratio=0.1, kl_coef=0.2)
    first = [batch.weights.clone() for batch in own.next_step()]
    tokens = drawn(own)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.05)
    second = own.next_step()
    assert drawn(own) == tokens
    changed = clipped = 0
    for batch, before in zip(second, first, strict=True):
        chosen = before != 0
        new, old, reference = (
            score(each, replace(batch, weights=before)).logprobs
            for each in (model, own.reference, own.reference)
        )
        ratio, advantage = (
            (new - old).exp(),
            before[chosen],
        )  # on the starting model the pull is zero
        gone = ((ratio > 1.1) & (advantage > 0)) | ((ratio < 0.9) & (advantage < 0))
        wanted = (advantage * ratio).masked_fill(gone, 0) + kl_weights(new, reference, 0.2)
        assert torch.allclose(batch.weights[chosen], wanted, atol=1e-5)
        changed, clipped = changed + int((wanted != advantage).sum()), clipped + int(gone.sum())
    assert changed and clipped


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_gradient_is_that_of_the_policy_gradient(model, tokenizer, temperature):
    """Summed over all answers and divided by their tokens, whether or not equal answers were
    computed only once.
    """
    own = source(model, tokenizer, temperature=temperature, num_samples=8)
    batches = own.next_step()
    n_targets = sum(int((batch.weights != 0).sum()) for batch in batches)
    (sum(loss_sum_and_count(model, batch)[0] for batch in batches) / n_targets).backward()
    got = model.lm_head.weight.grad.clone()
    model.zero_grad()
    objective, n_tokens = torch.zeros(()), 0
    for rollout in own.rollouts:
        ids = torch.tensor([rollout.tokens])
        logprobs = model(ids[:, :-1]).log_softmax(-1)[0].gather(1, ids[0, 1:, None])[:, 0]
        objective = (
            objective + (rollout.advantage * torch.tensor(rollout.chosen[1:]) * logprobs).sum()
        )
        n_tokens += sum(rollout.chosen) * rollout.copies * (rollout.advantage != 0)
    (-objective / n_tokens).backward()
    assert torch.allclose(got, model.lm_head.weight.grad, atol=1e-6)
    assert n_targets == n_tokens if temperature == 1 else n_targets < n_tokens


def test_state_between_two_uses_moves_to_another_number_of_ranks(model, tokenizer):
    parts = [source(model, tokenizer, rank, 2, updates_per_batch=2) for rank in range(2)]
    for own in parts:
        own.next_step()
    states = json.loads(json.dumps([own.state_dict() for own in parts]))
    alone = source(model, tokenizer, updates_per_batch=2)
    alone.load_state_dict(states)
    whole = source(model, tokenizer, updates_per_batch=2)
    whole.next_step()
    assert drawn(alone) == drawn(whole) and alone.n_uses == 1
    for mine, theirs in zip(alone.next_step(), whole.next_step(), strict=True):
        assert torch.equal(mine.weights, theirs.weights)
