"""Rollouts: what is weighed, that the order is the run's alone, that old weights leave no trace, and that it learns."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from nanochat.checkpoint_manager import checkpoint_dir, load_checkpoint, load_model, read_meta, save_checkpoint
from nanochat.engine import Completion
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl, rl_tasks, rollouts
from nanochat.train.advantages import kl_weights
from nanochat.train.objective import loss_sum_and_count
from nanochat.train.rl_configs import RLConfig
from nanochat.train.rollouts import RolloutOptions, RolloutSource
from nanochat.train.scoring import in_precision, micro_batches, score

SMALL = RolloutOptions(examples_per_step=4, num_samples=4, max_new_tokens=6, batch_size=8, budget_tokens=200)


class Letters(Task):
    """Pays for the share of lower-case letters in the answer."""

    name = "letters"

    def __init__(self, n: int = 12) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        return {"messages": [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": "abc"}]}

    def evaluate(self, conversation: dict, completion: str) -> bool:
        return self.reward(conversation, completion) > 0.9

    def reward(self, conversation: dict, completion: str) -> float:
        return sum(c.isascii() and c.islower() for c in completion) / max(1, len(completion))


class FirstLetter(Letters):
    """Pays for an answer that begins with a lower-case letter."""

    def reward(self, conversation: dict, completion: str) -> float:
        return float(completion[:1].isascii() and completion[:1].islower())


class Part(World):
    """One of several ranks, alone in its process."""

    def gather_objects(self, obj):
        return [obj]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.byte_level()


@pytest.fixture
def model(tokenizer) -> GPT:
    model = GPT(GPTConfig(64, tokenizer.get_vocab_size(), 2, 2, 2, 32))
    model.init_weights(3)
    with torch.no_grad():  # a fresh head is nearly zero: every model would draw the same
        model.lm_head.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(4))
    model.compute_dtype = torch.float32
    return model


def world(rank: int = 0, size: int = 1) -> World:
    return Part(rank, rank, size, torch.device("cpu"), None)


def source(model, tokenizer, rank: int = 0, size: int = 1, task: Task | None = None, **options) -> RolloutSource:
    reference = in_precision(model, torch.float32)
    return RolloutSource(model, tokenizer, task or Letters(), world(rank, size), replace(SMALL, **options), reference)


def test_scores_are_those_of_the_whole_forward_pass(model):
    rows = [(list(range(3, 3 + n)), [0.0] * 2 + [1.0] * (n - 2)) for n in (5, 9, 7)]
    for batch, _ in micro_batches(rows, 1000, 0):
        everything = model(batch.input_ids).log_softmax(-1)
        wanted = everything.gather(2, batch.targets[..., None])[..., 0][batch.weights != 0]
        logprobs, entropy = score(model, batch, with_entropy=True)
        assert torch.allclose(logprobs, wanted, atol=1e-5)
        all_entropies = torch.distributions.Categorical(logits=everything).entropy()
        assert torch.allclose(entropy, all_entropies[batch.weights != 0], atol=1e-5)


def test_micro_batches_hold_every_row_once_and_keep_to_the_budget():
    lengths = [5, 30, 7, 7, 12, 2, 50]
    rows = [([number + 1] * n, [0.0] + [float(number + 1)] * (n - 1)) for number, n in enumerate(lengths)]
    batches = micro_batches(rows, 64, 0)
    assert sorted(number for _, numbers in batches for number in numbers) == list(range(len(rows)))
    for batch, numbers in batches:
        assert batch.input_ids.numel() <= 64 or len(numbers) == 1
        for row, number in enumerate(numbers):
            n = lengths[number] - 1
            assert batch.targets[row, :n].tolist() == [number + 1] * n
            assert batch.weights[row].tolist() == [number + 1.0] * n + [0.0] * (batch.weights.size(1) - n)


def test_only_what_the_model_chose_is_weighed(model, tokenizer, monkeypatch):
    """Prompt, tool output and padding weigh nothing; the answer and the token that ended it weigh the advantage."""
    called = Completion(
        [11, 12, 13, 14], [1, 0, 0, 1], "stop", text="abcd", stop_token=tokenizer.encode_special("<|bos|>")
    )
    cut = Completion([21, 22], [1, 1], "length", text="AB")

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
    assert own.stats["reward"] == 0.5 and own.stats["cut_off"] == 0.5 and own.stats["length_tokens"] == 3.5


def test_questions_say_whether_the_calculator_may_be_used(model, tokenizer, monkeypatch):
    seen = []
    real = rollouts.complete_all
    monkeypatch.setattr(rollouts, "complete_all", lambda *args: seen.append(args[-1]) or real(*args))
    train = rl_tasks.questions("world-counting|World-Counting-without-tool", 0).train
    own = source(model, tokenizer, task=train, num_samples=2, max_new_tokens=2)
    own.next_step()
    assert seen[0] == [own.conversation(number).get("tool", True) for number in range(4)]
    assert {own.conversation(number).get("tool", True) for number in range(20)} == {True, False}


def drawn(own: RolloutSource) -> list[tuple]:
    return [(r.question, r.tokens, r.chosen, r.reward, r.advantage) for r in own.rollouts]


def test_ranks_share_the_questions_of_one_order(model, tokenizer):
    alone, parts = source(model, tokenizer), [source(model, tokenizer, rank, 3) for rank in range(3)]
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
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
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
            score(each, replace(batch, weights=before))[0] for each in (model, own.reference, own.reference)
        )
        ratio, advantage = (new - old).exp(), before[chosen]  # on the starting model the pull is zero
        gone = ((ratio > 1.1) & (advantage > 0)) | ((ratio < 0.9) & (advantage < 0))
        wanted = (advantage * ratio).masked_fill(gone, 0) + kl_weights(new, reference, 0.2)
        assert torch.allclose(batch.weights[chosen], wanted, atol=1e-5)
        changed, clipped = changed + int((wanted != advantage).sum()), clipped + int(gone.sum())
    assert changed and clipped


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_gradient_is_that_of_the_policy_gradient(model, tokenizer, temperature):
    """Summed over all answers and divided by their tokens, whether or not equal answers were computed only once."""
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
        objective = objective + (rollout.advantage * torch.tensor(rollout.chosen[1:]) * logprobs).sum()
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


# --- the stage


@pytest.fixture
def sft(model, tokenizer, base_dir, monkeypatch):
    """A checkpoint to start from, and questions of our own."""
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    directory = checkpoint_dir("sft", "d2")
    meta = {"model_config": model.config.to_dict(), "tokenizer": tokenizer.identity(), "total_batch_size": 2**19}
    save_checkpoint(directory, 7, model.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")
    asked = rl_tasks.Questions(FirstLetter(40), {"letters": FirstLetter(10)})
    monkeypatch.setattr(rl, "questions", lambda *args: asked)


TINY = RLConfig(
    device_type="cpu",
    examples_per_step=4,
    num_samples=8,
    max_new_tokens=6,
    eval_samples=2,
    eval_every=-1,
    save_every=-1,
)


def test_it_learns_and_leaves_what_every_stage_leaves(sft, base_dir):
    cfg = replace(TINY, num_iterations=25, init_lr_frac=0.1, max_new_tokens=2, num_samples=16)
    record = rl.rl(cfg, world())
    rows = [json.loads(line) for line in (base_dir / "chatrl_checkpoints/d2/metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert len(rewards) == 25 and sum(rewards[:3]) / 3 < 0.4 and sum(rewards[-3:]) / 3 > 0.8, rewards
    assert all({"length_tokens", "entropy", "kl"} <= set(row) for row in rows if "reward" in row)
    assert record["metrics"]["pass@1"] > record["metrics"]["pass@1 before"] + 0.5
    assert {"prompt", "completion", "reward"} == set(record["samples"][0])
    meta = read_meta(checkpoint_dir("rl", "d2"), 25)
    assert meta["stage"] == "rl" and meta["parent"]["step"] == 7 and meta["user_config"]["num_samples"] == 16
    assert load_model("rl", "cpu")[2]["metrics"]["pass@1"] == record["metrics"]["pass@1"]
    assert json.loads((base_dir / "report/chat_rl.json").read_text())["samples"]


@pytest.mark.parametrize("more", [{}, {"updates_per_batch": 2, "kl_coef": 0.1}])
def test_an_interrupted_run_ends_bit_equal(sft, base_dir, more):
    cfg = replace(TINY, num_iterations=5, save_every=1, keep=9, init_lr_frac=1.0, **more)
    rl.rl(replace(cfg, tag_out="whole"), world())
    whole, cut = checkpoint_dir("rl", "whole"), checkpoint_dir("rl", "cut")
    shutil.copytree(whole, cut)
    for path in [*cut.glob("*_000004*"), *cut.glob("*_000005*")]:
        path.unlink()
    record = rl.rl(replace(cfg, tag_out="cut", resume=True), world())
    ours, optimizer, _ = load_checkpoint(cut, 5, "cpu", load_optimizer=True)
    theirs, other, _ = load_checkpoint(whole, 5, "cpu", load_optimizer=True)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert str(optimizer) == str(other)
    assert "pass@1 before" in record["metrics"]


def test_settings_are_checked_together():
    cfg = RLConfig(task="GSM9K", num_samples=1, clip_ratio=0.0, total_batch_size=1024, max_seq_len=64)
    text = "\n".join(cfg.problems())
    for part in ("--task=GSM9K", "--num-samples=1", "--clip-ratio=0.0", "--total-batch-size", "--max-seq-len"):
        assert part in text
    assert RLConfig().problems() == [] and RLConfig(task="world-counting-without-tool|gsm8k").problems() == []


def test_tasks_come_with_held_out_questions():
    asked = rl_tasks.questions("World-arithmetic-without-tool|SpellingBee-without-tool|World-spelling", 1)
    assert list(asked.held_out) == ["World-arithmetic-without-tool", "SpellingBee-without-tool", "World-spelling"]
    assert asked.held_out["SpellingBee-without-tool"][0]["tool"] is False
    learned = {asked.train[i]["messages"][-2]["content"] for i in range(300)}
    examined = {task[i]["messages"][-2]["content"] for task in asked.held_out.values() for i in range(100)}
    assert not learned & examined
    assert rl_tasks.questions("auto", 1).train.name == "World-counting-without-tool"  # no GSM8K here
