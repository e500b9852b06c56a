"""Which checkpoints a list of files holds: every layout in which they lie about.

model_000650.pt meta_000650.json tokenizer.pkl         at the root
chatsft_checkpoints/d34/model_000700.pt tokenizer/     as under our base directory
mid_model_000813.pt mid_meta_000813.json               with a prefix
d20-sft/model_000650.pt d20-base/model_021400.pt       a folder for each
config.json model-00001-of-00002.safetensors           Hugging Face's
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nanochat.checkpoint_manager import FOLDERS

MODEL = re.compile(r"(?:(?P<prefix>[a-z]+)_)?model_(?P<step>\d+)\.pt")
STAGE_WORDS = {
    "base": "base",
    "pretrain": "base",
    "mid": "mid",
    "sft": "sft",
    "chatsft": "sft",
    "rl": "rl",
    "chatrl": "rl",
}
TOKENIZERS = ("tokenizer.pkl", "tokenizer.json")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint in a list of files. `stage`, `tag`, `step`: what the names say of it, None where
    they say nothing. `weights`: files; `about`: the meta or config file; `tokenizer`: None where
    there is none.
    """

    layout: str  # native | hf
    folder: str
    weights: tuple[str, ...]
    about: str
    tokenizer: str | None
    stage: str | None = None
    tag: str | None = None
    step: int | None = None

    def __str__(self) -> str:
        return self.weights[0]


def find_checkpoints(names: Sequence[str]) -> list[Found]:
    """Every complete checkpoint among the names, in their order."""
    known = set(names)
    found = [entry for name in names if (entry := _native(PurePosixPath(name), known))]
    folders = {str(PurePosixPath(name).parent) for name in names if name.endswith(".safetensors")}
    return found + [entry for folder in sorted(folders) if (entry := _hf(folder, names, known))]


def _native(path: PurePosixPath, known: set[str]) -> Found | None:
    match = MODEL.fullmatch(path.name)
    if match is None:
        return None
    about = str(path.with_name(path.name.replace("model_", "meta_").replace(".pt", ".json")))
    if about not in known:
        return None
    words = [*path.parts[:-1], match["prefix"] or ""]
    tags = re.findall(r"d\d+", " ".join(path.parts[:-1]))
    return Found(
        layout="native",
        folder=str(path.parent),
        weights=(str(path),),
        about=about,
        tokenizer=_tokenizer(path.parent, known),
        stage=_stage(words),
        tag=tags[-1] if tags else None,
        step=int(match["step"]),
    )


def _hf(folder: str, names: Sequence[str], known: set[str]) -> Found | None:
    place = PurePosixPath(folder)
    about = str(place / "config.json")
    if about not in known:
        return None
    weights = tuple(
        name
        for name in names
        if name.endswith(".safetensors") and PurePosixPath(name).parent == place
    )
    return Found(
        layout="hf",
        folder=folder,
        weights=weights,
        about=about,
        tokenizer=_tokenizer(place, known),
        stage=_stage(place.parts),
    )


def _stage(words: Sequence[str]) -> str | None:
    """The stage that the last telling word of a path names."""
    folders = {folder: stage for stage, folder in FOLDERS.items()}
    for word in reversed(words):
        if word in folders:
            return folders[word]
        for part in reversed(re.split(r"[^a-z]+", word.lower())):
            if part in STAGE_WORDS:
                return STAGE_WORDS[part]
    return None


def _tokenizer(place: PurePosixPath, known: set[str]) -> str | None:
    """The nearest tokenizer: beside the weights, in a folder there, or above."""
    for folder in (place, *place.parents):
        for below in (folder, folder / "tokenizer"):
            for name in TOKENIZERS:
                if str(below / name) in known:
                    return str(below / name)
    return None
