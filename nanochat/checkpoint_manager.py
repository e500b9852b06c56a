"""Save, find, verify and load checkpoints. A step exists only when its `meta_*.json`, written last,
names its files.

`<base>/<source>_checkpoints/<tag>/` holds `model_000123.pt` (a state dict that loads with
weights_only), optional `optim_000123*.pt`, `meta_000123.json` with the SHA-256 of both, and
`tokenizer/`, so that the folder is all one needs. Public checkpoints of either generation load too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nanochat.gpt import GPT, model_without_storage
from nanochat.gpt_config import GPTConfig
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.errors import rank
from nanochat.runtime.files import atomic_write
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.records import plain
from nanochat.runtime.tensor_files import read_tensors, sync_directory, write_tensors
from nanochat.tokenizer import Tokenizer

FOLDERS = {
    "base": "base_checkpoints",
    "mid": "mid_checkpoints",
    "sft": "chatsft_checkpoints",
    "rl": "chatrl_checkpoints",
}
COMMANDS = {
    "base": "python -m scripts.base_train",
    "mid": "python -m scripts.mid_train",
    "sft": "python -m scripts.chat_sft",
    "rl": "python -m scripts.chat_rl",
}


def checkpoint_dir(source: str, tag: str) -> Path:
    """Where checkpoints of a stage (base | mid | sft | rl) and tag live. Raises ValueError for an
    unknown stage.
    """
    if source not in FOLDERS:
        raise ValueError(f"source={source}: unknown stage; use one of {', '.join(FOLDERS)}")
    if not re.fullmatch(r"[\w.-]+", tag) or tag.startswith("."):
        raise ValueError(f"model_tag={tag!r}: use letters, digits, '.', '_' and '-' only, e.g. d4")
    return base_dir() / FOLDERS[source] / tag


def save_checkpoint(
    directory: str | Path,
    step: int,
    model_state: dict[str, Any],
    optimizer_state: dict[str, Any] | None,
    meta: dict[str, Any],
) -> Path:
    """Write one step: the tensors first, `meta_*.json` last. Returns the path of the meta file.

    Raises OSError when the disk is full; the files of the unfinished step are removed then.
    """
    directory = Path(directory).expanduser()
    files = {f"model_{step:06d}.pt": model_state}
    if optimizer_state is not None:
        files[f"optim_{step:06d}.pt"] = optimizer_state
    meta_path = directory / f"meta_{step:06d}.json"
    meta_path.unlink(missing_ok=True)  # while its files are replaced the step does not exist
    begun = directory / f".saving_{step:06d}"  # what a killed save leaves is known by it
    directory.mkdir(parents=True, exist_ok=True)
    try:
        begun.touch()
        written = {name: write_tensors(directory / name, state) for name, state in files.items()}
        sync_directory(directory)
        write_meta(directory, step, {**meta, "step": step, "files": written})
        begun.unlink()
    except OSError:
        remove_step(directory, step)
        raise
    return meta_path


def write_meta(directory: Path, step: int, meta: dict[str, Any]) -> None:
    """Write (or replace) the meta file of a step, whole or not at all. A score that is not finite
    becomes null.
    """
    atomic_write(
        directory / f"meta_{step:06d}.json",
        json.dumps(plain(meta), indent=1, allow_nan=False) + "\n",
    )
    sync_directory(directory)


def complete_steps(directory: str | Path) -> list[int]:
    """Steps in `directory`, ascending, whose meta file can be read, whose files all have the
    recorded size, and from which training did not turn out to diverge.
    """
    directory = Path(directory).expanduser()
    return [step for step in trained_steps(directory) if incomplete(directory, step) is None]


def trained_steps(directory: Path) -> list[int]:
    """Steps of which `directory` holds a model or a meta file, complete or not, ascending."""
    names = [path.name for path in directory.glob("m*_*")]
    found = [re.fullmatch(r"model_(\d+)\.pt|meta_(\d+)\.json", name) for name in names]
    return sorted({int(match.group(1) or match.group(2)) for match in found if match})


def step_files(directory: Path, step: int) -> list[Path]:
    """The files of a step, the meta file first."""
    patterns = (f"meta_{step:06d}.json", f"model_{step:06d}.pt", f"optim_{step:06d}*.pt")
    return [path for pattern in patterns for path in sorted(directory.glob(pattern))]


def incomplete(directory: Path, step: int) -> str | None:
    """What is missing for `step` to be loadable, or None. Sizes are compared, hashes only on
    loading.
    """
    if not (directory / f"meta_{step:06d}.json").exists():
        return f"{directory / f'meta_{step:06d}.json'} is missing, which says what the model is"
    try:
        meta = read_meta(directory, step)
    except ValueError as error:
        return str(error)
    if meta.get("diverged"):
        return "training went on to losses that are not finite from there"
    files = meta.get("files") or {f"model_{step:06d}.pt": {}}
    for name, facts in files.items():
        path = directory / name
        if not path.is_file():
            return f"{path} is missing"
        if "bytes" in facts and path.stat().st_size != facts["bytes"]:
            return f"{path} has {path.stat().st_size} bytes instead of {facts['bytes']}"
    return None


def read_meta(directory: Path, step: int) -> dict[str, Any]:
    """The meta file of a step. ValueError when there is none or it cannot be read."""
    path = directory / f"meta_{step:06d}.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such step; complete steps here: {complete_steps(directory) or 'none'}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not readable ({error}); delete the step's files or use another step"
        ) from None
    if not isinstance(meta, dict) or not isinstance(meta.get("model_config"), dict):
        raise ValueError(f"{path}: has no model_config; it is not a checkpoint of this project")
    return meta


def remove_step(directory: Path, step: int) -> None:
    """Delete a step: the meta file first, so that no half of it is ever taken for a checkpoint."""
    for path in (*step_files(directory, step), directory / f".saving_{step:06d}"):
        path.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> list[str]:
    """Delete what a killed save left: temporary files, and the tensors of a step that was begun and
    has no meta file. Returns their names. Tensors that came here in another way stay.
    """
    stale = [*directory.glob(".*.pt.partial"), *directory.glob(".meta_*.json.*")]
    for begun in directory.glob(".saving_*"):
        stale.append(begun)
        step = begun.name.removeprefix(".saving_")
        if step.isdigit() and not (directory / f"meta_{step}.json").exists():
            stale += step_files(directory, int(step))
    for path in stale:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in stale)


def prune(directory: Path, keep: int, own: Collection[int], spare: int | None = None) -> None:
    """Of a run's `own` complete steps keep the `keep` newest, the one with the lowest `val_bpb` and
    `spare`; delete the others. Steps that are not its own stay.
    """
    steps = [step for step in complete_steps(directory) if step in own]
    if len(steps) <= keep:
        return
    scores = {step: read_meta(directory, step).get("val_bpb") for step in steps}
    best = min(
        ((score, step) for step, score in scores.items() if score is not None), default=(None, None)
    )[1]
    for step in steps[: len(steps) - keep]:
        if step not in (best, spare):
            remove_step(directory, step)


def load_checkpoint(
    directory: str | Path, step: int, device: torch.device | str, load_optimizer: bool = False
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """(model state, optimizer state or None, meta) of a step, its files checked against their
    SHA-256.

    Raises ValueError naming the file when one is missing, damaged or not a checkpoint.
    """
    directory = Path(directory).expanduser()
    meta = read_meta(directory, step)
    facts = meta.get("files", {})
    model = read_tensors(directory / f"model_{step:06d}.pt", facts, device)
    model = {name.removeprefix("_orig_mod."): tensor for name, tensor in model.items()}
    optimizer = None
    if load_optimizer:
        optimizer = read_tensors(directory / f"optim_{step:06d}.pt", facts, device)
    return model, optimizer, meta


def find_checkpoint(
    source: str, model_tag: str | None = None, step: int | None = None
) -> tuple[Path, int, str]:
    """(directory, step, why) for a stage: the asked one, else the largest depth and the newest
    complete step.

    Raises ValueError saying what there is, and the command that makes a first one.
    """
    root = checkpoint_dir(source, model_tag or "d1").parent
    tags = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    usable = {tag: steps for tag in tags if (steps := complete_steps(root / tag))}
    broken = {tag: _newest_fault(root / tag) for tag in tags if tag not in usable}
    broken = {tag: fault for tag, fault in broken.items() if fault}
    told = "; ".join(f"{tag} is incomplete: {fault}" for tag, fault in broken.items())
    if model_tag in broken:
        raise ValueError(
            f"model_tag={model_tag}: this {source} checkpoint is incomplete: {broken[model_tag]}"
        )
    if not usable:
        make = f"make one with `{COMMANDS[source]}`"
        raise ValueError(
            f"no {source} checkpoint in {root}; {make}" + (f" ({told})" if told else "")
        )
    if model_tag is None:
        model_tag, why = _choose_tag(root, usable)
        why += f"; {told}" if told else ""
    elif model_tag not in usable:
        raise ValueError(
            f"model_tag={model_tag}: no {source} checkpoint of that name; there are: "
            f"{', '.join(usable)}"
        )
    else:
        why = "as asked"
    steps = usable[model_tag]
    if step is None:
        return root / model_tag, steps[-1], f"{why}; newest complete step"
    if step not in steps:
        reason = incomplete(root / model_tag, step)
        raise ValueError(
            f"step={step}: not usable ({reason}); complete steps of {model_tag}: {steps}"
        )
    return root / model_tag, step, why


def _newest_fault(directory: Path) -> str | None:
    """What the newest step of a folder without a complete one lacks; None for a folder without
    steps.
    """
    steps = trained_steps(directory)
    return incomplete(directory, steps[-1]) if steps else None


def _choose_tag(root: Path, usable: dict[str, list[int]]) -> tuple[str, str]:
    depths = {tag: int(tag[1:]) for tag in usable if re.fullmatch(r"d\d+", tag)}
    if depths:
        tag = max(depths, key=lambda tag: depths[tag])
        return tag, "the only one" if len(usable) == 1 else f"largest depth of {', '.join(usable)}"
    tag = max(
        usable, key=lambda tag: (root / tag / f"meta_{usable[tag][-1]:06d}.json").stat().st_mtime
    )
    return tag, f"the newest of {', '.join(usable)}"


def build_model(state: dict[str, Any], meta: dict[str, Any], where: str = "checkpoint") -> GPT:
    """A model on the state's device holding its tensors. Raises ValueError when they do not fit
    `model_config`.
    """
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = GPTConfig.from_checkpoint(meta["model_config"], given)
    model = model_without_storage(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [f"{name} (missing)" for name in wanted if name not in given]
    wrong += [f"{name} (unknown)" for name in given if name not in wanted]
    wrong += [
        f"{n} {given[n]} instead of {wanted[n]}"
        for n in wanted
        if n in given and given[n] != wanted[n]
    ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"{where}: the tensors do not fit its model_config: {shown}")
    model.load_state_dict(state, assign=True)
    return model


def weights_path(meta: dict[str, Any]) -> str:
    """Where a checkpoint's weights are; `meta` as `load_model` returns it."""
    return str(Path(meta["directory"]) / f"model_{meta['step']:06d}.pt")


def refuse_non_finite(state: dict[str, Any], where: str) -> None:
    """ValueError for weights that are no numbers: what a diverged training leaves behind."""
    bad = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite()
    ]
    if bad:
        raise ValueError(
            f"{where}: {len(bad)} of {len(state)} tensors hold values that are not finite (NaN or "
            f"infinite), first {bad[0]}: its training diverged; use an earlier checkpoint"
        )


def load_tokenizer(directory: Path, meta: dict[str, Any]) -> Tokenizer:
    """The checkpoint's own tokenizer, else the base directory's. Raises ValueError when it is not
    the model's.
    """
    own = directory / "tokenizer"
    place = own if own.is_dir() else base_dir() / "tokenizer"
    tokenizer = Tokenizer.load(place)
    vocab_size, identity = meta["model_config"]["vocab_size"], meta.get("tokenizer")
    if tokenizer.get_vocab_size() != vocab_size or (identity and tokenizer.identity() != identity):
        raise ValueError(
            f"{place}: vocabulary mismatch: this tokenizer ({tokenizer.get_vocab_size()} tokens) "
            "is not the one that "
            f"{directory.name} was trained with ({vocab_size} tokens); restore that tokenizer or "
            "retrain the model"
        )
    return tokenizer


def load_model(
    source: str,
    device: torch.device | str,
    phase: str = "eval",
    model_tag: str | None = None,
    step: int | None = None,
    context_tokens: int | None = None,
) -> tuple[GPT, Tokenizer, dict[str, Any]]:
    """(model, tokenizer, meta) of a stage's checkpoint; prints which one and why.

    `phase` "eval": weights in the device's compute type, gradients off. "train": weights in fp32.
    `context_tokens`: where the model's context is shorter, the model and the `model_config` of its
    meta get this one. Raises ValueError naming the file when it is damaged or its weights are no
    numbers.
    """
    assert phase in ("eval", "train"), phase
    directory, step, why = find_checkpoint(source, model_tag, step)
    if rank() == "0":
        print(f"{source} checkpoint: {directory.name} step {step} ({why})", flush=True)
    state, _, meta = load_checkpoint(directory, step, device)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = GPTConfig.from_checkpoint(meta["model_config"], shapes)
    if context_tokens is not None and context_tokens > config.sequence_len:
        if rank() == "0":
            print(
                f"its context grows from {config.sequence_len} to {context_tokens} tokens",
                flush=True,
            )
        # Windows stay as wide as they were learned: within the old context nothing changes.
        config = replace(config, sequence_len=context_tokens)
    meta = {**meta, "model_config": config.to_dict()}
    where = str(directory / f"model_{step:06d}.pt")
    refuse_non_finite(state, where)
    model = build_model(state, meta, where)
    dtype = pick_dtype(device)
    model.float() if phase == "train" else model.to(dtype).requires_grad_(False)
    model.compute_dtype = dtype
    model.train(phase == "train")
    return (
        model,
        load_tokenizer(directory, meta),
        {**meta, "directory": str(directory), "source": source},
    )
