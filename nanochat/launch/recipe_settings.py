"""Settings of the recipes for a CPU, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]

# The CPU recipe: two cores, no network, 7 to 15 minutes. Step -> settings of its command.
CPU: dict[str, Settings] = {
    "data": {"embedded": True, "characters": 20_000_000},
    "tokenizer": {"vocab_size": 2048, "max_chars": 10_000_000},
    "base": {
        "generation": "modern",
        "depth": 4,
        "max_seq_len": 256,
        "total_batch_size": 4096,
        "num_iterations": 880,
        "eval_every": 176,
        "eval_tokens": 65_536,
        "sample_every": -1,
        "core_metric_every": -1,
    },
    "mid": {
        "mixture": "world",
        "total_batch_size": 4096,
        "num_iterations": 480,
        "compile": True,  # the base stage has compiled the same shape, so this takes seconds
        "eval_every": 100,
        "eval_tokens": 65_536,
        "sample_every": -1,
    },
    "sft": {
        "mixture": "world",
        "total_batch_size": 4096,
        "num_iterations": 100,
        "compile": True,
        "init_lr_frac": 0.3,
        "eval_every": -1,
        "eval_tokens": 65_536,
        "sample_every": -1,
    },
    "exam": {"source": "sft", "task_name": "world"},
}
# What `--smoke` changes: every step for real, all of them in about a minute, nothing learned.
CPU_SMOKE: dict[str, Settings] = {
    "data": {"characters": 1_000_000},
    "tokenizer": {"vocab_size": 1024, "max_chars": 500_000},
    "base": {"depth": 2, "num_iterations": 10, "eval_tokens": 8192},
    "mid": {"num_iterations": 5, "eval_tokens": 8192, "compile": False},
    "sft": {"num_iterations": 5, "eval_tokens": 8192, "compile": False},
    "exam": {"max_problems": 4, "max_new_tokens": 32},
}

# What the recipe sql adds: about ten minutes more, to an assistant for the embedded shop.
SQL_SHOP: dict[str, Settings] = {
    "shop": {"queries": 12_000},
    "questions": {
        "dialect": "sqlite",
        "per_shape": 20,
        "wordings": 2,
        "distractors": 1,
        "test_share": 0.12,
        "overwrite": True,
    },
    "assistant": {
        "mixture": "world",
        "share": 0.5,  # a language that the model has never seen
        "total_batch_size": 4096,
        "num_iterations": 260,
        "init_lr_frac": 1.0,
        "compile": True,
        "task_name": "world",
        "max_problems": 200,
        "max_new_tokens": 96,
    },
}
SQL_SMOKE: dict[str, Settings] = {
    "shop": {"queries": 200},
    "assistant": {"num_iterations": 5, "compile": False, "max_problems": 4, "max_new_tokens": 32},
}
