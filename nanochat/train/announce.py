"""What a run says before its first step."""

from __future__ import annotations

from nanochat.cost import count_parameters
from nanochat.runtime.world import World
from nanochat.train.configs import BaseConfig
from nanochat.train.derive import Settings
from nanochat.train.mixtures import ChatMixture
from nanochat.train.plan import chip_of, other_generations, run_plan
from nanochat.train.rl_configs import RLConfig
from nanochat.train.run_facts import RunFacts
from nanochat.train.trainer import Trainer


def announce(facts: RunFacts, trainer: Trainer) -> None:
    """Size, steps and batch of a run over packed rows, then its plan."""
    settings, world = facts.settings, trainer.world
    if not world.is_main:
        return
    plan = run_plan(
        settings,
        facts.micro,
        world,
        n_steps=facts.n_steps,
        compute_dtype=trainer.model.compute_dtype,
        keep=facts.cfg.keep,
        compiled=trainer.gradients.forward.compiled is not None,
    )
    print(
        f"{_model_and_steps(facts)} of {settings.total_batch_size:,} tokens "
        f"({facts.micro.device_batch_size} x {settings.seq_len} a micro-batch), "
        f"{_where(trainer)}"
    )
    print("\n".join(plan.lines()), flush=True)


def announce_generations(cfg: BaseConfig, settings: Settings, world: World) -> None:
    """What the other generations would give, where none was named."""
    if world.is_main and cfg.generation == BaseConfig.generation:
        vocab_size, kind = settings.model_config.vocab_size, world.device.type
        lines = other_generations(cfg, vocab_size, kind, chip_of(world), world.world_size)
        print("\n".join(lines), flush=True)


def announce_mixture(mixture: ChatMixture, world: World) -> None:
    """What a run over conversations learns, source by source."""
    if world.is_main:
        print("\n".join(mixture.lines()), flush=True)


def announce_rollouts(facts: RunFacts, cfg: RLConfig, trainer: Trainer) -> None:
    """Size, steps and answers of a run over rollouts."""
    if trainer.world.is_main:
        print(
            f"{_model_and_steps(facts)} of {cfg.examples_per_step} questions x {cfg.num_samples} "
            f"answers, {_where(trainer)}",
            flush=True,
        )


def _model_and_steps(facts: RunFacts) -> str:
    settings, config = facts.settings, facts.settings.model_config
    return (
        f"{facts.stage}: {settings.recipe} d{config.n_layer}, "
        f"{count_parameters(config)}, {facts.n_steps:,} steps"
    )


def _where(trainer: Trainer) -> str:
    world = trainer.world
    return f"{trainer.model.compute_dtype}, {world.world_size} process(es) on {world.device}"
