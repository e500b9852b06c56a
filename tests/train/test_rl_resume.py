"""Reinforcement learning that is stopped and goes on ends bit-equal to the run nobody stopped."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

import pytest
import torch
from tiny_rl import TINY, FirstLetter, save_sft, world

from nanochat.checkpoint_manager import checkpoint_dir, complete_steps, load_checkpoint, read_meta
from nanochat.tokenizer import Tokenizer
from nanochat.train import rl_tasks, stages
from nanochat.train.gradients import Gradients
from nanochat.train.interrupt import EXIT_STOPPED, Stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
CFG = replace(TINY, num_iterations=6, eval_samples=2, eval_examples=4, keep=9, init_lr_frac=1.0)
TWICE = {"updates_per_batch": 2, "kl_coef": 0.1}


class Stop:
    """Sends SIGTERM to this process when it is called for the nth time."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def asked(base_dir, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    save_sft(Tokenizer.byte_level())
    questions = rl_tasks.Questions(FirstLetter(40), {"letters": FirstLetter(10)})
    monkeypatch.setattr(stages, "questions", lambda *args: questions)


def end(tag: str) -> tuple[dict, list[float]]:
    """Weights and optimizer states of a finished run, and the loss of every step."""
    directory = checkpoint_dir("rl", tag)
    tensors, optimizer, _ = load_checkpoint(
        directory, CFG.num_iterations, "cpu", load_optimizer=True
    )
    for group, states in optimizer["state"].items():
        tensors |= {
            f"{group} {n} {key}": tensor
            for n, state in enumerate(states)
            for key, tensor in state.items()
        }
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return tensors, [row["train_loss"] for row in rows if "train_loss" in row]


def same_end(**more) -> bool:
    record = stages.rl(replace(CFG, tag_out="cut", resume=True, **more), world())
    assert "pass@1 before" in record["metrics"]
    stages.rl(replace(CFG, tag_out="whole", **more), world())
    (ours, our_losses), (theirs, their_losses) = end("cut"), end("whole")
    assert ours.keys() == theirs.keys() and len(our_losses) == CFG.num_iterations
    return (
        all(torch.equal(ours[name], theirs[name]) for name in theirs) and our_losses == their_losses
    )


@pytest.mark.parametrize("more, step", [({}, 2), (TWICE, 3), (TWICE, 4)])
def test_stopped_by_a_signal_between_two_steps(asked, monkeypatch, more, step):
    """With two updates on the same answers step 3 lies between the two: those answers are in the
    checkpoint.
    """
    with monkeypatch.context() as patch:
        accumulate, stop = Gradients.accumulate, Stop(step)
        patch.setattr(Gradients, "accumulate", lambda *args: (stop(), accumulate(*args))[1])
        with pytest.raises(Stopped) as stopped:
            stages.rl(replace(CFG, tag_out="cut", **more), world())
    assert stopped.value.code == EXIT_STOPPED and complete_steps(checkpoint_dir("rl", "cut")) == [
        step
    ]
    source = read_meta(checkpoint_dir("rl", "cut"), step)["trainer"]["source"][0]
    assert bool(source["rollouts"]) == (step % more.get("updates_per_batch", 1) != 0)
    assert same_end(**more)


@pytest.mark.parametrize("more, step", [({}, 2), (TWICE, 4)])
def test_stopped_while_answers_are_paid(asked, monkeypatch, more, step):
    """The answers are given up at once, the steps before them are saved."""
    draws = step // more.get("updates_per_batch", 1)
    with monkeypatch.context() as patch:
        reward, stop = (
            FirstLetter.reward,
            Stop(draws * CFG.examples_per_step * CFG.num_samples + 4 * 2 + 3),
        )
        patch.setattr(FirstLetter, "reward", lambda *args: (stop(), reward(*args))[1])
        with pytest.raises(Stopped):
            stages.rl(replace(CFG, tag_out="cut", **more), world())
    assert complete_steps(checkpoint_dir("rl", "cut")) == [step]
    assert same_end(**more)
