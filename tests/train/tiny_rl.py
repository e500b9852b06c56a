"""What tests of reinforcement learning share: a model of two layers, tasks that pay for letters, a
checkpoint.
"""

from __future__ import annotations

import torch
from tiny_config import tiny_config

from nanochat.checkpoint_manager import checkpoint_dir, save_checkpoint
from nanochat.gpt import GPT
from nanochat.runtime.world import World
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer
from nanochat.train.rl_configs import RLConfig


class Letters(Task):
    """Pays for the share of lower-case letters in the answer."""

    name = "letters"

    def __init__(self, n: int = 12) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        return {
            "messages": [
                {"role": "user", "content": f"{index}?"},
                {"role": "assistant", "content": "abc"},
            ]
        }

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


def world(rank: int = 0, size: int = 1) -> World:
    return Part(rank, rank, size, torch.device("cpu"), None)


def small_model(tokenizer: Tokenizer) -> GPT:
    model = GPT(tiny_config(tokenizer.get_vocab_size()))
    model.init_weights(3)
    with torch.no_grad():  # a fresh head is nearly zero: every model would draw the same
        model.lm_head.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(4))
    model.compute_dtype = torch.float32
    return model


def save_sft(tokenizer: Tokenizer) -> None:
    """A fine-tuned model's checkpoint, d2, in the base directory."""
    model, directory = small_model(tokenizer), checkpoint_dir("sft", "d2")
    meta = {
        "model_config": model.config.to_dict(),
        "tokenizer": tokenizer.identity(),
        "total_batch_size": 2**19,
    }
    save_checkpoint(directory, 7, model.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")


TINY = RLConfig(
    device_type="cpu",
    examples_per_step=4,
    num_samples=8,
    max_new_tokens=6,
    eval_samples=2,
    eval_every=-1,
    save_every=-1,
)
