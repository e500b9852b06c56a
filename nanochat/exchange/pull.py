"""`nanochat pull SOURCE`: a checkpoint of any layout into the base directory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from nanochat.checkpoint_manager import (
    FOLDERS,
    build_model,
    checkpoint_dir,
    refuse_non_finite,
    save_checkpoint,
)
from nanochat.config import Positional, Short
from nanochat.exchange.hf_reader import (
    config_from_hf,
    read_json,
    read_safetensors,
    read_tokenizer,
)
from nanochat.exchange.layouts import Found, find_checkpoints
from nanochat.exchange.repo_files import RepoFiles, open_repo
from nanochat.exchange.stock_classes import extras
from nanochat.gpt_config import GPTConfig
from nanochat.model_spec import parse_spec
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import locked
from nanochat.runtime.printable import printable
from nanochat.runtime.tensor_files import read_tensors
from nanochat.tokenizer import Tokenizer

NEXT = {
    "base": "python -m scripts.mid_train --model_tag={tag}",
    "mid": "python -m scripts.chat_sft --source=mid --model_tag={tag}",
    "sft": "python -m scripts.chat_cli -i sft -g {tag}",
    "rl": "python -m scripts.chat_cli -i rl -g {tag}",
}


@dataclass
class PullConfig:
    """Bring a checkpoint from the hub, an address or a folder into the base directory."""

    source: Positional[str]
    """owner/name[@revision] on the hub, the address of a model file, or a folder."""
    target: Annotated[str | None, Short("--as")] = None
    """Stage and tag to keep it under, such as sft:d34; found out from its files where they tell."""
    step: int | None = None
    """Which step, where there are several; the newest when not given."""
    folder: str | None = None
    """Which folder there, where several hold checkpoints."""
    revision: str = "main"
    """Branch, tag or commit of a repository on the hub."""
    tokenizer: str | None = None
    """A tokenizer.pkl or tokenizer.json of this machine, for a checkpoint without one."""
    softcap: float | None = None
    """Softcap of the logits where the files cannot tell: 20 for models of 3 to 9 March 2026."""
    rope_base: float | None = None
    """Base of the rotary positions, where the files are wrong about it."""
    window_tokens: int | None = None
    """Tokens that short attention windows see, where the files are wrong about it."""
    replace: bool = False
    """Write over a step that is there already."""

    def problems(self) -> list[str]:
        found = []
        if self.target is not None:
            try:
                spec = parse_spec(self.target)
                if spec.tag is None or spec.step is not None:
                    found.append(f"--as={self.target}: write stage:tag, e.g. sft:d34")
            except ValueError as error:
                found.append(f"--as={self.target}: {error}")
        for name in ("softcap", "rope_base", "window_tokens"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                found.append(f"--{name.replace('_', '-')}={value}: must be above 0")
        return found

    def changes(self) -> dict[str, Any]:
        """Fields of the model's config that were given by flag."""
        given = {
            "logit_softcap": self.softcap,
            "rope_base": self.rope_base,
            "window_tokens": self.window_tokens,
        }
        return {name: value for name, value in given.items() if value is not None}


def pull(cfg: PullConfig) -> Path:
    """Fetch, check and save a checkpoint; prints what it is and the next command. Returns its
    folder. Raises ValueError for what cannot be had, is damaged, or is of an unknown kind; nothing
    is left in the stages' folders then.
    """
    repo = open_repo(cfg.source, cfg.revision)
    found = chosen(find_checkpoints(repo.names), repo, cfg)
    print(f"{repo.place}: {found} ({found.layout} layout)", flush=True)
    staging = base_dir() / ".pull" / re.sub(r"[^\w.-]+", "--", f"{repo.place}@{repo.version}")
    with locked(staging):
        names = [*found.weights, found.about, *([found.tokenizer] if found.tokenizer else [])]
        paths = {name: staging / name for name in names}
        for name, path in paths.items():
            repo.bring(name, path)
        folder, step, config = save_pulled(found, paths, repo, cfg)
        shutil.rmtree(staging)
    said = ", ".join(extras(config)) or "classic"
    spec = f"{_stage_of(folder)}:{folder.name}"
    print(f"saved as {spec}:{step} in {folder} ({said}, softcap {config.logit_softcap:g})")
    print("next: " + NEXT[_stage_of(folder)].format(tag=folder.name))
    return folder


def chosen(every: Sequence[Found], repo: RepoFiles, cfg: PullConfig) -> Found:
    """The one checkpoint that is meant. ValueError that lists them where that is not clear."""
    if not every:
        raise ValueError(f"{repo.place}: holds no checkpoint; {_what_is_there(repo.names)}")
    left = [f for f in every if cfg.folder is None or f.folder == cfg.folder.strip("/")]
    left = [f for f in left if cfg.step is None or f.step in (cfg.step, None)]
    stage = parse_spec(cfg.target).source if cfg.target else None
    same = [f for f in left if f.stage == stage]
    left = same if stage and same else left
    if not left:
        raise ValueError(f"{repo.place}: no such checkpoint there; it has {_listed(every)}")
    ours = [f for f in left if f.layout == "native"]
    left = [f for f in left if f.layout == "native" or f.folder not in {o.folder for o in ours}]
    places = {(f.folder, f.stage, f.layout) for f in left}
    if len(places) > 1:
        raise ValueError(
            f"{repo.place}: holds several checkpoints; say which with --folder, --step or --as: "
            f"{_listed(left)}"
        )
    return max(left, key=lambda f: f.step or 0)


def _listed(every: Sequence[Found]) -> str:
    shown = [printable(str(f)) for f in every]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _what_is_there(names: Sequence[str]) -> str:
    if any(name.endswith(".gguf") for name in names):
        return "a GGUF file cannot be taken back, pull the checkpoint it was made from"
    if any(re.search(r"model_\d+\.pt$", name) for name in names):
        return "a model file lies there without its meta file, which says what the model is"
    return "looked for model_*.pt with meta_*.json, and for config.json with *.safetensors"


def save_pulled(
    found: Found, paths: dict[str, Path], repo: RepoFiles, cfg: PullConfig
) -> tuple[Path, int, GPTConfig]:
    """Read and check the fetched files, save them as a checkpoint -> (folder, step, config)."""
    about = read_json(paths[found.about])
    if found.layout == "hf":
        state = read_safetensors([paths[name] for name in found.weights])
        meta: dict[str, Any] = {"model_config": config_from_hf(about).to_dict()}
    else:
        (weights,) = found.weights
        state, meta = _native(paths[weights], about)
    config = built_config(state, meta, str(found), cfg.changes())
    refuse_non_finite(state, str(found))
    tokenizer = _tokenizer(found, paths, repo, cfg, config)
    stage, tag, step = _name(found, about, config, cfg)
    folder = checkpoint_dir(stage, tag)
    if (folder / f"meta_{step:06d}.json").exists() and not cfg.replace:
        raise ValueError(
            f"{folder}: step {step} is there already; add --replace, or name another tag with --as"
        )
    pulled = {"source": repo.place, "version": repo.version, "file": str(found)}
    meta = {
        **meta,
        "model_config": config.to_dict(),
        "tokenizer": tokenizer.identity(),
        "pulled": pulled,
    }
    tokenizer.save(folder / "tokenizer")
    save_checkpoint(folder, step, state, None, meta)
    return folder, step, config


def _native(path: Path, about: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not isinstance(about.get("model_config"), dict):
        raise ValueError("the meta file has no model_config: it is none of this project")
    recorded = about.get("files")
    state = read_tensors(path, recorded if isinstance(recorded, dict) else {}, "cpu")
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in state.items()}, about


def built_config(
    state: dict[str, Tensor], meta: dict[str, Any], where: str, changes: dict[str, Any]
) -> GPTConfig:
    """What the tensors and the meta file say the model is. ValueError where they do not fit."""
    given = {**meta, "model_config": {**meta["model_config"], **changes}}
    try:
        return build_model(state, given, where).config
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{where}: its model_config is damaged: {error}") from None


def _tokenizer(
    found: Found, paths: dict[str, Path], repo: RepoFiles, cfg: PullConfig, config: GPTConfig
) -> Tokenizer:
    if cfg.tokenizer:
        place = expanded(cfg.tokenizer)
        tokenizer = read_tokenizer(place) if place.is_file() else Tokenizer.load(place)
    elif found.tokenizer:
        tokenizer = read_tokenizer(paths[found.tokenizer])
    else:
        raise ValueError(
            f"{repo.place}: comes without a tokenizer; bring the one it was trained with, of "
            f"{config.vocab_size:,} tokens, as --tokenizer=FILE (tokenizer.pkl or tokenizer.json)"
        )
    if tokenizer.get_vocab_size() != config.vocab_size:
        raise ValueError(
            f"{repo.place}: the tokenizer has {tokenizer.get_vocab_size():,} tokens, the model "
            f"{config.vocab_size:,}; bring the right one as --tokenizer=FILE"
        )
    return tokenizer


def _name(
    found: Found, about: dict[str, Any], config: GPTConfig, cfg: PullConfig
) -> tuple[str, str, int]:
    """(stage, tag, step) to save under. ValueError when nobody says the stage."""
    made_from = re.fullmatch(r"(\w+):([\w.-]+):(\d+)", str(about.get("nanochat_checkpoint", "")))
    stage = found.stage or (made_from[1] if made_from else None) or about.get("stage")
    tag = found.tag or (made_from[2] if made_from else f"d{config.n_layer}")
    step = found.step if found.step is not None else int(made_from[3]) if made_from else 0
    if cfg.target is not None:
        spec = parse_spec(cfg.target)
        stage, tag = spec.source, spec.tag or tag
    if stage not in FOLDERS:
        raise ValueError(
            f"{found}: its files do not say which stage it is of; add --as, e.g. --as=sft:{tag}"
        )
    return str(stage), tag, cfg.step if cfg.step is not None and found.step is None else step


def _stage_of(folder: Path) -> str:
    return next(stage for stage, name in FOLDERS.items() if name == folder.parent.name)
