"""The stage of reinforcement learning: the one Trainer with rollouts as its source of batches."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from nanochat.checkpoint_manager import load_model
from nanochat.config import as_dict
from nanochat.eval.generative import AnswerSampling
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.world import World
from nanochat.train.hooks import LogHook
from nanochat.train.rl_configs import RLConfig
from nanochat.train.rl_hooks import Examination, RolloutLog
from nanochat.train.rl_tasks import Questions, questions
from nanochat.train.rollouts import RolloutOptions, RolloutSource
from nanochat.train.run import Run
from nanochat.train.scoring import in_precision
from nanochat.train.settings import MICRO_BATCH_TOKENS, Settings, chat_settings

ROLLOUT_BATCH = {"cpu": 64, "cuda": 256, "mps": 64}


def rl(cfg: RLConfig, world: World) -> dict[str, Any]:
    """Let the model answer questions and make the better answers likelier. Returns the run's
    record.

    Raises ValueError for a missing checkpoint or a data set that is absent.
    """
    asked = questions(cfg.task, cfg.seed)
    model, tokenizer, meta = load_model(cfg.source, world.device, "train", cfg.model_tag, cfg.step)
    settings = rl_settings(cfg, meta, world, len(asked.train))
    parent = {
        "source": cfg.source,
        "directory": meta["directory"],
        "step": meta["step"],
        "files": meta.get("files"),
    }
    tag = cfg.tag_out or meta["directory"].rsplit("/", 1)[-1]
    run = RLRun("rl", cfg, settings, model, tokenizer, world, tag=tag, prompts=(), parent=parent)
    return run.learn(asked)


def rl_settings(cfg: RLConfig, meta: dict[str, Any], world: World, n_questions: int) -> Settings:
    """As for fine-tuning; the steps follow from the questions, the micro-batch from what fits the
    device.
    """
    settings = chat_settings(cfg, meta, world)
    rows = cfg.device_batch_size or max(
        1, MICRO_BATCH_TOKENS[world.device.type] // settings.seq_len
    )
    batches = max(1, math.ceil(cfg.num_epochs * n_questions / cfg.examples_per_step))
    n_steps = settings.n_steps or batches * cfg.updates_per_batch
    return dataclasses.replace(settings, device_batch_size=rows, n_steps=n_steps)


class RLRun(Run):
    """A run whose batches are rollouts: its folder, resume, checkpoints and record are those of
    every stage.
    """

    cfg: RLConfig

    def options(self) -> RolloutOptions:
        """What of the settings concerns the rollouts."""
        names = {field.name for field in dataclasses.fields(RolloutOptions)}
        given = {name: value for name, value in as_dict(self.cfg).items() if name in names}
        return RolloutOptions(
            **given,
            batch_size=self.cfg.rollout_batch_size or ROLLOUT_BATCH[self.world.device.type],
            budget_tokens=self.settings.device_batch_size * self.settings.seq_len,
        )

    def learn(self, asked: Questions) -> dict[str, Any]:
        """Train to the end and write the record; returns it."""
        started = time.time()
        n_steps = self.settings.n_steps
        assert n_steps is not None
        # The starting model, before a resume puts later weights in its place.
        reference = in_precision(
            self.model, self.model.compute_dtype or self.model.lm_head.weight.dtype
        )
        source = RolloutSource(
            self.model, self.tokenizer, asked.train, self.world, self.options(), reference
        )
        trainer = self._trainer(source, n_steps)
        with MetricLog(self._metrics_path(trainer.step), self.cfg.run, as_dict(self.cfg)) as log:
            examination = self._examination(source, asked, log)
            saver = self._saver(n_steps)
            if trainer.step:
                examination.recall(self.history)
            elif self.cfg.eval_every:
                examination.examine(trainer)
            trainer.hooks = [LogHook(log), RolloutLog(source, log), saver, examination]
            self.train(trainer, saver)
        self.samples = source.samples
        scores = {
            **examination.last,
            **{f"{name} before": value for name, value in examination.before.items()},
        }
        return self._record(trainer, saver, started, {**scores, **source.stats})

    def _examination(self, source: RolloutSource, asked: Questions, log: MetricLog) -> Examination:
        cfg = self.cfg
        # The model itself, whatever it explores with: temperature 1, every token.
        sampling = AnswerSampling(cfg.max_new_tokens, 1.0, None, cfg.eval_samples, cfg.seed)
        return Examination(source, asked.held_out, cfg.eval_examples, sampling, cfg.eval_every, log)

    def _announce(self, n_steps: int, compiled: bool) -> None:
        if self.world.is_main:
            cfg, n_params = (
                self.cfg,
                sum(parameter.numel() for parameter in self.model.parameters()),
            )
            print(
                f"rl: {self.settings.recipe} "
                f"d{self.settings.model_config.n_layer}, {n_params:,} "
                f"parameters, {n_steps:,} steps of {cfg.examples_per_step} questions x "
                f"{cfg.num_samples} answers, "
                f"{self.model.compute_dtype}, {self.world.world_size} process(es) on "
                f"{self.world.device}",
                flush=True,
            )
