"""Teaching a model something more without forgetting the rest: own conversations as a share of the
built-in mixture, into a checkpoint folder of its own."""

from __future__ import annotations

from pathlib import Path

from nanochat.checkpoint_manager import checkpoint_dir, read_meta
from nanochat.train.configs import ChatTrainConfig, SFTConfig
from nanochat.train.mixtures import chat_mixture


def free_tag(stage: str, tag: str) -> str:
    """The tag itself, or the first of tag2, tag3, ... that the stage has no checkpoint of."""
    number = 1
    while checkpoint_dir(stage, name := f"{tag}{number if number > 1 else ''}").exists():
        number += 1
    return name


def add_as_share(
    settings: ChatTrainConfig, stage: str, data: Path, n_rows: int, share: float, exposures: float
) -> None:
    """Set `data` and `num_epochs` so that the file is `share` of what is learned, and each of its
    rows is learned `exposures` times.
    """
    epochs = 1.0
    if settings.mixture != "none":
        alone = type(settings)(mixture=settings.mixture, persona=settings.persona)
        n_mixture = len(chat_mixture(stage, alone).train)
        epochs = max(1.0, share / (1 - share) * n_mixture / n_rows)
    settings.data = [f"{data}:{epochs:.6g}"]
    settings.num_epochs = exposures / epochs


def learning_rate_share(directory: Path, step: int, asked: float | None) -> float:
    """The learning rate at the first step, as asked, else as the model's own finetuning had it."""
    before = read_meta(directory, step).get("user_config", {})
    return float(asked or before.get("init_lr_frac") or SFTConfig().init_lr_frac)
