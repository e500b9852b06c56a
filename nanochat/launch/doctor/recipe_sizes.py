"""How large a recipe's model is and how long it will train, as far as that is known."""

from __future__ import annotations

import os

from nanochat.config import collect
from nanochat.launch.recipes import Recipe
from nanochat.runtime.allocated_gpus import allocated_gpus
from nanochat.train.configs import BaseConfig
from nanochat.train.derive import Settings, pretraining


def pretraining_settings(recipe: Recipe) -> Settings:
    """Raises ValueError where the recipe's settings do not fit each other."""
    steps = {step.name: step for step in recipe.steps}
    cfg, problems = collect(BaseConfig, steps["base"].argv())
    if cfg is None:
        raise ValueError("\n".join(problems))
    vocab_size = int(steps["tokenizer"].settings["vocab_size"])
    return pretraining(cfg, vocab_size, recipe.device)


def pretraining_hours(recipe: Recipe) -> float | None:
    """On the GPUs that are here; the recipe's own hours where it has some; else None."""
    if recipe.hours is not None or allocated_gpus(os.environ) is None:
        return recipe.hours
    import torch

    from nanochat.runtime.chips import find_chip
    from nanochat.train.plan import price

    count = torch.cuda.device_count()
    if not count:
        return None
    settings = pretraining_settings(recipe)
    assert settings.n_steps is not None
    chip = find_chip(torch.cuda.get_device_name(0))
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES") or 1)
    return price(settings, settings.n_steps, chip, count * nodes)[0]
