"""What a run leaves for the report; the final numbers also go into its last checkpoint's meta
file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nanochat.checkpoint_manager import read_meta, write_meta
from nanochat.config import as_dict
from nanochat.cost import count_parameters
from nanochat.runtime.records import write_record
from nanochat.train.run_facts import RunFacts
from nanochat.train.run_folder import RunFolder
from nanochat.train.saving import SaveHook
from nanochat.train.trainer import Trainer

SECTIONS = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft", "rl": "chat_rl"}


def record_run(
    facts: RunFacts,
    folder: RunFolder,
    trainer: Trainer,
    saver: SaveHook,
    *,
    started: float,
    scores: dict[str, Any],
    samples: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Write the record of a finished run, on the main rank; returns it on every rank.

    `started`: Unix time, s. `scores`: the stage's own numbers, such as validation bits per byte.
    """
    metrics = {
        **scores,
        "steps": trainer.step,
        "tokens": trainer.tokens_seen,
        "train_s": round(trainer.train_s, 2),
        "tokens_per_s": round(trainer.tokens_seen / max(trainer.train_s, 1e-9), 1),
        "parameters": count_parameters(facts.settings.model_config).total,
    }
    finished = time.time()
    record = {
        "stage": facts.stage,
        "config": as_dict(facts.cfg),
        "settings": facts.settings_dict(),
        "mixture": list(facts.mixture),
        "metrics": metrics,
        "started": started,
        "finished": finished,
        "wall_s": round(finished - started, 2),
        "device": str(trainer.world.device),
        "world_size": trainer.world.world_size,
        "metrics_jsonl": str(folder.metrics),
        "samples": list(samples),
    }
    if trainer.world.is_main and saver.saved_step is not None:
        step = saver.saved_step
        meta = read_meta(folder.path, step)
        write_meta(
            folder.path, step, {**meta, "metrics": metrics, "val_bpb": scores.get("val_bpb")}
        )
        record["checkpoint"] = {
            "path": str(folder.path),
            "step": step,
            "sha256": meta["files"][f"model_{step:06d}.pt"]["sha256"],
        }
        write_record(SECTIONS[facts.stage], record)
    return record
