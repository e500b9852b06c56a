"""A base directory in which all stages run in a second: byte-level vocabulary, two small shards,
short chats.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from nanochat.dataset.shards import write_shards
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import BaseConfig

WORDS = (
    "the sun moon river stone bird tree wind sings runs falls over under bright old quiet".split()
)


def sentences(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 30))) + "." for _ in range(count)]


def make_base(base: Path) -> None:
    """Write shards, tokenizer and a conversations file into a base directory."""
    Tokenizer.byte_level().save(base / "tokenizer")
    about = {"kind": "own text", "source": "test", "licence": "none"}
    write_shards(base / "base_data", sentences(400, 1), sentences(40, 2), **about)
    chats = [
        [{"role": "user", "content": text[:12]}, {"role": "assistant", "content": text[12:]}]
        for text in sentences(60, 3)
    ]
    (base / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))


def base_config(**changes) -> BaseConfig:
    settings = dict(
        generation="modern",
        depth=1,
        aspect_ratio=32,
        head_dim=16,
        max_seq_len=32,
        device_batch_size=2,
        total_batch_size=128,
        num_iterations=6,
        eval_every=0,
        eval_tokens=64,
        sample_every=0,
        core_metric_every=-1,
        device_type="cpu",
        model_tag="t",
        window_pattern="L",
    )
    return BaseConfig(**{**settings, **changes})
