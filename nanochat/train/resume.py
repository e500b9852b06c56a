"""Going on where a run stopped: which checkpoint, and whether the settings are still the same."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import complete_steps, find_checkpoint, load_checkpoint
from nanochat.config import as_dict
from nanochat.gpt import GPT
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.world import World
from nanochat.train.run_facts import RunFacts
from nanochat.train.run_folder import RunFolder
from nanochat.train.shard_model import load_full_state
from nanochat.train.trainer import Trainer
from nanochat.train.watched import watched

MUST_AGREE = (  # the user's flags that settings do not hold
    "seed",
    "generation",
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


@dataclass(frozen=True)
class Resumed:
    """`step`: the one gone on from, None for a fresh start; `evaluated`: whether its evaluations
    had been made.
    """

    step: int | None = None
    evaluated: bool = True


def resume(trainer: Trainer, folder: RunFolder, facts: RunFacts) -> Resumed:
    """Load what `--resume` or `--resume-from-step` ask for into a trainer at its beginning.

    Raises ValueError when the settings are not those of the run that stopped. Collective.
    """
    if not facts.cfg.resumes:
        return Resumed()
    with watched(trainer.world, trainer.interrupt):
        return _resume(trainer, folder, facts)


def _resume(trainer: Trainer, folder: RunFolder, facts: RunFacts) -> Resumed:
    step = choose_step(facts.stage, folder.path, facts.cfg.resume_from_step, trainer.world)
    if step is None:
        return Resumed()
    state, optimizer_state, meta = load_checkpoint(folder.path, step, "cpu", load_optimizer=True)
    check_settings(meta, facts)
    check_data(meta, facts)
    check_source(meta, facts, folder.path)
    load_weights(trainer.model, state, folder.path / f"model_{step:06d}.pt")
    assert optimizer_state is not None
    trainer.optimizer.load_state_dict(optimizer_state)
    trainer.load_state_dict(meta["trainer"])
    if trainer.world.is_main:
        print(
            f"resuming {facts.stage} {folder.path.name} after step {step} of {facts.n_steps}",
            flush=True,
        )
    return Resumed(step, evaluated=bool(meta.get("evaluated")))


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


def check_settings(meta: dict[str, Any], facts: RunFacts) -> None:
    """Raise ValueError naming everything that differs from the run that saved `meta` and would
    change its course.
    """
    user, saved = as_dict(facts.cfg), dict(meta.get("settings", {}))
    if "model_config" in saved:  # of an older file perhaps
        saved["model_config"] = GPTConfig.from_checkpoint(saved["model_config"], {}).to_dict()
    then = {**flat(saved), "tokenizer": meta.get("tokenizer")}
    now = flat({**asdict(facts.settings), "n_steps": facts.n_steps, "tokenizer": facts.tokenizer})
    for name in MUST_AGREE:
        if name in meta.get("user_config", {}) and name in user:
            then[name], now[name] = meta["user_config"][name], user[name]
    wrong = [
        f"{name}: {then[name]} then, {now[name]} now"
        for name in now
        if name in then and plain(then[name]) != plain(now[name])
    ]
    if wrong:
        raise ValueError(
            f"cannot resume with other settings ({'; '.join(wrong)}): use those of the run that "
            "stopped "
            "(its config.yaml: --config), or start afresh under another --model-tag or --tag-out"
        )


def check_data(meta: dict[str, Any], facts: RunFacts) -> None:
    """Raise ValueError naming what has been edited, is gone or has come since the run stopped."""
    then: dict[str, str] = meta.get("data") or facts.data  # older checkpoints do not say
    wrong = [
        f"{name} {'has changed' if name in facts.data else 'is gone'}"
        for name, digest in then.items()
        if facts.data.get(name) != digest
    ]
    wrong += [f"{name} is new" for name in facts.data if name not in then]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(
            f"cannot resume on other data ({shown}): put back what the run that stopped was "
            "learning from, or start afresh under another --model-tag or --tag-out"
        )


def check_source(meta: dict[str, Any], facts: RunFacts, folder: Path) -> None:
    """Raise ValueError where `meta` is not of an unfinished run but of the checkpoint that this run
    starts from, in the same folder.
    """
    own = folder.resolve()
    if _source(facts.parent) == own and _source(meta.get("parent")) != own:
        raise ValueError(
            f"{folder}: --resume would go on with the run that made the checkpoint this one starts "
            "from; name the folder of the run that stopped with --tag-out"
        )


def _source(parent: dict[str, Any] | None) -> Path | None:
    return Path(parent["directory"]).resolve() if parent and parent.get("directory") else None


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


def load_weights(model: GPT, state: dict[str, Any], where: Path) -> None:
    """Put a checkpoint's tensors into `model`. Raises ValueError when they are not this model's."""
    try:
        load_full_state(model, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{where}: the checkpoint is of another model ({reason}); use the settings it had"
        ) from None
