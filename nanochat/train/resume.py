"""Going on where a run stopped: which checkpoint, whether the settings are still the same, what the
log keeps.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import complete_steps, find_checkpoint, load_checkpoint
from nanochat.gpt import GPT
from nanochat.runtime.run_dir import atomic_write, base_dir
from nanochat.runtime.world import World
from nanochat.train.shard_model import load_full_state

FREE_SETTINGS = {
    "device_batch_size",
    "activation_checkpointing",
    "shard_model",
}  # may differ: they change no result
MUST_AGREE = (  # the user's flags that settings do not hold
    "seed",
    "mixture",
    "persona",
    "data",
    "num_epochs",
    "task",
    "examples_per_step",
    "num_samples",
    "max_new_tokens",
    "temperature",
    "top_k",
    "min_p",
    "advantage",
    "updates_per_batch",
    "clip_ratio",
    "kl_coef",
)


def choose_step(source: str, directory: Path, step: int | None, world: World) -> int | None:
    """The step to go on from, agreed by all ranks, or None for a fresh start.

    step: the asked one; None takes the newest complete step, a fresh start when there is none, and
    passes over one whose files do not match their SHA-256 (with a warning). Raises ValueError when
    there is no usable one.
    """
    answer: int | str | None = None
    if world.is_main:
        try:
            answer = _choose(source, directory, step)
        except ValueError as error:
            answer = str(error)
    answer = world.broadcast_object(answer)
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


def _choose(source: str, directory: Path, step: int | None) -> int | None:
    if step is not None:
        return find_checkpoint(source, directory.name, step)[1]
    steps = complete_steps(directory)
    for number in reversed(steps):
        try:
            load_checkpoint(directory, number, "cpu", load_optimizer=True)
        except ValueError as error:
            print(f"WARNING: {error}; trying the step before", file=sys.stderr, flush=True)
            continue
        return number
    if steps:
        raise ValueError(
            f"{directory}: none of the steps {steps} can be read; move the folder away to start "
            "over"
        )
    print(f"--resume: no complete step in {directory}, starting from the beginning", flush=True)
    return None


def check_settings(
    meta: dict[str, Any], settings: dict[str, Any], user: dict[str, Any], tokenizer: str
) -> None:
    """Raise ValueError naming everything that differs from the run that saved `meta` and would
    change its course.
    """
    then = {**flat(meta.get("settings", {})), "tokenizer": meta.get("tokenizer")}
    now = {**flat(settings), "tokenizer": tokenizer}
    for name in MUST_AGREE:
        if name in meta.get("user_config", {}) and name in user:
            then[name], now[name] = meta["user_config"][name], user[name]
    wrong = [
        f"{name}: {then[name]} then, {now[name]} now"
        for name in now
        if name in then and name not in FREE_SETTINGS and plain(then[name]) != plain(now[name])
    ]
    if wrong:
        raise ValueError(
            f"cannot resume with other settings ({'; '.join(wrong)}): use those of the run that "
            "stopped "
            "(its config.yaml: --config), or start afresh under another --model-tag or --tag-out"
        )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, `optim.matrix_lr`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def set_aside(directory: Path) -> None:
    """Move the checkpoints of an earlier run out of a fresh one's way, to `previous/` in the base
    directory: its steps must not be taken for newer ones, and whoever forgot `--resume` loses
    nothing. One is kept.
    """
    if not complete_steps(directory):
        return
    target = base_dir() / "previous" / directory.parent.name / directory.name
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(directory, target)
    print(
        f"a fresh start (no --resume): the earlier checkpoints of {directory} are now in {target}",
        flush=True,
    )


def rewind_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the rows of a metrics.jsonl that lie after `step`, and half lines; returns the rows that
    stay.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # torn by a kill
            continue
        if isinstance(row, dict) and row.get("step", math.inf) <= step:
            rows.append(row)
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows


def load_weights(model: GPT, state: dict[str, Any], where: Path) -> None:
    """Put a checkpoint's tensors into `model`. Raises ValueError when they are not this model's."""
    try:
        load_full_state(model, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{where}: the checkpoint is of another model ({reason}); use the settings it had"
        ) from None
