"""Small models and worlds for the evaluation tests."""

from __future__ import annotations

import functools
import json
import threading

import pytest
import torch

from nanochat.checkpoint_manager import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.byte_level()


def _random_model(
    tokenizer: Tokenizer, generation: str = "modern", context: int = 128, **shape
) -> GPT:
    """Two layers with every weight random: fresh models are zero in places, which would hide
    mistakes.
    """
    sizes = {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "n_embd": 32, "window_pattern": "L"}
    config = GPTConfig.preset(
        generation,
        sequence_len=context,
        vocab_size=tokenizer.get_vocab_size(),
        **{**sizes, **shape},
    )
    model = GPT(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def make_model(tokenizer):
    return functools.partial(_random_model, tokenizer)


@pytest.fixture(scope="session")
def model(make_model) -> GPT:
    return make_model()


@pytest.fixture
def save(base_dir, tokenizer):
    """Write a model as the sft and base checkpoint."""

    def written(model: GPT) -> None:
        for folder in ("chatsft_checkpoints", "base_checkpoints"):
            directory = base_dir / folder / "d2"
            meta = {"model_config": model.config.to_dict()}
            save_checkpoint(directory, 5, model.state_dict(), None, meta)
            tokenizer.save(directory / "tokenizer")

    return written


@pytest.fixture
def checkpoint(base_dir, make_model, save):
    """An untrained sft and base checkpoint, and some task data."""
    save(make_model(context=192))
    arc = [
        {
            "question": {
                "stem": f"{i}?",
                "choices": [{"text": t, "label": c} for t, c in zip("xyzw", "ABCD", strict=True)],
            },
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(30)
    ]
    for name, rows in {
        "arc/ARC-Easy/test": arc,
        "gsm8k/test": [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(6)],
    }.items():
        path = base_dir / "task_data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return base_dir / "chatsft_checkpoints" / "d2"


@pytest.fixture
def single() -> World:
    return World(0, 0, 1, torch.device("cpu"))


class ThreadWorld(World):
    """Ranks as threads of this process, with the collectives that evaluation uses."""

    def __init__(self, rank: int, size: int, box: dict, barrier: threading.Barrier) -> None:
        super().__init__(rank, rank, size, torch.device("cpu"), "gloo")
        self._box, self._barrier = box, barrier

    def gather_objects(self, obj):
        self._box[self.rank] = obj
        self._barrier.wait(timeout=60)
        result = [self._box[rank] for rank in range(self.world_size)]
        self._barrier.wait(timeout=60)
        return result

    def all_reduce_sum(self, tensor):
        return tensor.copy_(sum(t.clone() for t in self.gather_objects(tensor.clone())))

    def barrier(self) -> None:
        self._barrier.wait(timeout=60)


@pytest.fixture
def on_ranks():
    """Run `function(world)` on several ranks -> the ranks' results."""

    def run(size, function):
        box, barrier, results = {}, threading.Barrier(size), [None] * size

        def one(rank):
            try:
                results[rank] = function(ThreadWorld(rank, size, box, barrier))
            except BaseException as error:
                results[rank] = error
                barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run
