"""One run of a stage: its folder, its hooks, its resume, and the record it leaves for the
report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from nanochat.checkpoint_manager import (
    checkpoint_dir,
    load_checkpoint,
    read_meta,
    remove_leftovers,
    write_meta,
)
from nanochat.config import as_dict, dump
from nanochat.cost import checkpoint_bytes
from nanochat.dataloader.documents import Documents
from nanochat.dataloader.loader import PackedLoader
from nanochat.fp8 import use_fp8
from nanochat.gpt import GPT
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.preflight import preflight
from nanochat.runtime.rank_watch import Watch, say_lost
from nanochat.runtime.records import write_record
from nanochat.runtime.run_dir import code_version
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.compiled import CompiledHidden, hidden_function
from nanochat.train.configs import BaseConfig, TrainConfig
from nanochat.train.hooks import LogHook, PeriodicHook, SaveHook, ValidationHook
from nanochat.train.interrupt import Interrupt, Stopped
from nanochat.train.plan import run_plan
from nanochat.train.resume import (
    check_settings,
    choose_step,
    load_weights,
    rewind_metrics,
    set_aside,
)
from nanochat.train.samples import sample_texts
from nanochat.train.saving import check_disk
from nanochat.train.settings import Settings
from nanochat.train.shard_model import shard_model
from nanochat.train.trainer import Hook, Source, Trainer

SECTIONS = {"base": "base_train", "mid": "mid_train", "sft": "chat_sft", "rl": "chat_rl"}


class Run:
    """Puts a stage's parts together and trains. Nothing is written before everything has been
    checked.
    """

    def __init__(
        self,
        stage: str,
        cfg: TrainConfig,
        settings: Settings,
        model: GPT,
        tokenizer: Tokenizer,
        world: World,
        tag: str,
        prompts: Sequence[str],
        parent: dict[str, Any] | None = None,
    ) -> None:
        self.stage, self.cfg, self.settings, self.model, self.tokenizer = (
            stage,
            cfg,
            settings,
            model,
            tokenizer,
        )
        self.world, self.prompts, self.parent = world, prompts, parent
        self.directory = checkpoint_dir(stage, tag)
        self.samples: list[dict[str, str]] = []
        assert (
            model.config == settings.model_config
        )  # a checkpoint must describe the model that was trained
        preflight(world)
        model.activation_checkpointing = settings.activation_checkpointing
        if isinstance(cfg, BaseConfig) and cfg.fp8:
            use_fp8(model)
        if settings.shard_model:
            shard_model(model, world)
        elif cfg.shard_model:
            print(
                "--shard-model: a single process has nobody to share the model with; going on "
                "without",
                flush=True,
            )
        self.history: list[dict[str, Any]] = []  # metrics of the part of the run before a resume
        self.resumed_from: int | None = None
        self.evaluated = True  # whether the evaluations of that step have been made

    def fit(self, train: Documents, validation: Documents) -> dict[str, Any]:
        """Train to the end and write the record; returns it. Raises Stopped when a signal ended it
        early.
        """
        started = time.time()
        loader = self._loader(train)
        n_steps = self.settings.n_steps or loader.estimate_steps(
            getattr(self.cfg, "num_epochs", 1.0)
        )
        hidden_fn = hidden_function(
            self.model, self.cfg.compile, n_steps * self.settings.total_batch_size
        )
        trainer = self._trainer(loader, n_steps, hidden_fn)
        with MetricLog(self._metrics_path(trainer.step), self.cfg.run, as_dict(self.cfg)) as log:
            validator = ValidationHook(
                self._validation_loader(validation),
                self.tokenizer.token_bytes(),
                self.cfg.eval_every,
                log,
            )
            validator.last, validator.best = self._past_scores()
            saver = self._saver(n_steps)
            trainer.hooks = [LogHook(log), saver, validator, *self._evaluations(log)]
            self.train(trainer, saver)
        loader.close()
        scores: dict[str, Any] = {"val_bpb": validator.last, "min_val_bpb": validator.best}
        if bad := getattr(train, "bad", {}):
            scores["bad_shards"] = len(bad)
        return self._record(trainer, saver, started, scores)

    def _trainer(
        self, source: Source, n_steps: int, hidden_fn: Callable[[Tensor], Tensor] | None = None
    ) -> Trainer:
        """The loop over `source`, at its beginning or where a resumed run goes on."""
        groups = parameter_groups(self.model, self.settings.optim)
        trainer = Trainer(
            self.model,
            source,
            Optimizer(groups, self.world),
            self.settings.schedule(n_steps),
            self.world,
            grad_clip=self.settings.grad_clip,
            hidden_fn=hidden_fn,
            description=self.stage,
            interrupt=Interrupt(self.world),
        )
        with self._watched(trainer.interrupt):
            self._resume(trainer)
        check_disk(self.directory, checkpoint_bytes(self.model.config), self.cfg.keep)
        self._announce(n_steps, isinstance(hidden_fn, CompiledHidden))
        return trainer

    def train(self, trainer: Trainer, saver: SaveHook) -> None:
        """`trainer.fit()` that signals stop in good order and that ends when a rank is lost."""
        with self._watched(trainer.interrupt, saver), trainer.interrupt:
            if trainer.step and (trainer.done or not self.evaluated):
                trainer.catch_up()
            trainer.fit()
        if trainer.interrupted:
            message = (
                f"{trainer.stop_reason}: saved and stopped after step {trainer.step}; "
                "--resume goes on from there"
            )
            if self.world.is_main:
                print(message, file=sys.stderr, flush=True)
            raise Stopped(message)

    @contextmanager
    def _watched(self, interrupt: Interrupt, saver: SaveHook | None = None) -> Iterator[None]:
        """Around collectives: a rank that dies, hangs or fails is named, and all end within a
        bounded time.
        """

        def settle() -> None:
            if saver is not None:
                saver.wait()

        watch = Watch(self.world, lambda: interrupt.requested, interrupt.poke, settle)
        try:
            with watch:
                yield
        except (
            RuntimeError
        ) as error:  # a collective, broken by another rank's end, or a fault of our own
            cause = watch.explain(error)
            settle()
            if cause is error:
                watch.fail(error)
                raise
            say_lost(str(watch.verdict), self.world.rank)
            raise cause from None
        except Exception as error:
            watch.fail(error)
            settle()
            raise

    def _loader(self, documents: Documents) -> PackedLoader:
        return PackedLoader(
            documents,
            self.tokenizer,
            rows_per_step=self.settings.rows_per_step,
            seq_len=self.settings.seq_len,
            device_batch_size=self.settings.device_batch_size,
            rank=self.world.rank,
            world_size=self.world.world_size,
        )

    def _validation_loader(self, documents: Documents) -> PackedLoader:
        rows = max(
            self.world.world_size,
            min(self.settings.rows_per_step, 8192 // self.settings.seq_len or 1),
        )
        return PackedLoader.validation(
            documents,
            self.tokenizer,
            eval_tokens=self.cfg.eval_tokens,
            rows_per_step=rows,
            seq_len=self.settings.seq_len,
            device_batch_size=self.settings.device_batch_size,
            rank=self.world.rank,
            world_size=self.world.world_size,
            prefetch=False,
        )

    def _resume(self, trainer: Trainer) -> None:
        """Load what `--resume` or `--resume-from-step` ask for. Raises ValueError when settings are
        not the same.
        """
        asked = self.cfg.resume_from_step
        if asked == -1 or (asked is None and not self.cfg.resume):
            return
        step = choose_step(self.stage, self.directory, asked, self.world)
        if step is None:
            return
        state, optimizer_state, meta = load_checkpoint(
            self.directory, step, "cpu", load_optimizer=True
        )
        settings = {**asdict(self.settings), "n_steps": trainer.n_steps}
        check_settings(meta, settings, as_dict(self.cfg), self.tokenizer.identity())
        load_weights(self.model, state, self.directory / f"model_{step:06d}.pt")
        assert optimizer_state is not None
        trainer.optimizer.load_state_dict(optimizer_state)
        trainer.load_state_dict(meta["trainer"])
        self.resumed_from, self.evaluated = step, bool(meta.get("evaluated"))
        if self.world.is_main:
            print(
                f"resuming {self.stage} {self.directory.name} after step {step} of "
                f"{trainer.n_steps}",
                flush=True,
            )

    def _metrics_path(self, from_step: int) -> Path | None:
        """A fresh run starts a new log; a resumed one continues it."""
        path = self.directory / "metrics.jsonl"
        if not self.world.is_main:
            return None
        if from_step == 0:
            set_aside(self.directory)
            path.unlink(missing_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.history = rewind_metrics(path, from_step)
        remove_leftovers(self.directory)
        dump(self.cfg, self.directory / "config.yaml")
        self.tokenizer.save(self.directory / "tokenizer")
        return path

    def _past_scores(self) -> tuple[float | None, float | None]:
        """(last, best) validation bits per byte of the part of the run before a resume."""
        scores = [row["val_bpb"] for row in self.history if row.get("val_bpb") is not None]
        return (scores[-1], min(scores)) if scores else (None, None)

    def _saver(self, n_steps: int) -> SaveHook:
        meta = {
            "stage": self.stage,
            "recipe": self.settings.recipe,
            "model_config": self.model.config.to_dict(),
            "user_config": as_dict(self.cfg),
            "settings": {**asdict(self.settings), "n_steps": n_steps},
            "device_batch_size": self.settings.device_batch_size,
            "max_seq_len": self.settings.seq_len,
            "total_batch_size": self.settings.total_batch_size,
            "tokenizer": self.tokenizer.identity(),
            "code_version": code_version(),
            "parent": self.parent,
        }
        hook = SaveHook(
            self.directory, meta, self.cfg.save_every, self.cfg.save_every_s, self.cfg.keep
        )
        hook.saved_step = self.resumed_from
        return hook

    def _evaluations(self, log: MetricLog) -> list[Hook]:
        hooks: list[Hook] = [PeriodicHook(self.cfg.sample_every, self._sample)]
        if isinstance(self.cfg, BaseConfig) and self.cfg.core_metric_every > 0:
            per_task = self.cfg.core_metric_max_per_task

            def core(trainer: Trainer) -> None:
                from nanochat.eval.suite import core_metric

                value = core_metric(trainer.model, self.tokenizer, trainer.world, per_task)
                if value is not None:
                    trainer.scores.setdefault(trainer.step, {})["core_metric"] = value
                    log.log(trainer.step, core_metric=value)

            hooks.append(PeriodicHook(self.cfg.core_metric_every, core))
        return hooks

    def _sample(self, trainer: Trainer) -> None:
        if not trainer.world.is_main:
            return
        self.samples = sample_texts(
            trainer.model, self.tokenizer, self.prompts, chat=self.stage != "base"
        )
        for sample in self.samples:
            print(f"  {sample['prompt']} -> {sample['completion']!r}", flush=True)

    def _announce(self, n_steps: int, compiled: bool) -> None:
        if not self.world.is_main:
            return
        settings, n_params = (
            self.settings,
            sum(parameter.numel() for parameter in self.model.parameters()),
        )
        rows, config = settings.device_batch_size, settings.model_config
        print(
            f"{self.stage}: {settings.recipe} d{config.n_layer}, {n_params:,} parameters, "
            f"{n_steps:,} steps of "
            f"{settings.total_batch_size:,} tokens ({rows} x {settings.seq_len} a micro-batch), "
            f"{self.model.compute_dtype}, {self.world.world_size} process(es) on "
            f"{self.world.device}",
        )
        plan = run_plan(
            settings, self.world, n_steps, self.model.compute_dtype, self.cfg.keep, compiled
        )
        print("\n".join(plan.lines()), flush=True)

    def _record(
        self, trainer: Trainer, saver: SaveHook, started: float, scores: dict[str, Any]
    ) -> dict[str, Any]:
        """What the report reads; the final numbers also go into the last checkpoint's meta file."""
        metrics = {
            **scores,
            "steps": trainer.step,
            "tokens": trainer.tokens_seen,
            "train_s": round(trainer.train_s, 2),
            "tokens_per_s": round(trainer.tokens_seen / max(trainer.train_s, 1e-9), 1),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }
        record = {
            "stage": self.stage,
            "config": as_dict(self.cfg),
            "settings": asdict(self.settings),
            "metrics": metrics,
            "started": started,
            "finished": time.time(),
            "wall_s": round(time.time() - started, 2),
            "device": str(self.world.device),
            "world_size": self.world.world_size,
            "metrics_jsonl": str(self.directory / "metrics.jsonl"),
            "samples": self.samples,
        }
        if self.world.is_main and saver.saved_step is not None:
            meta = read_meta(self.directory, saver.saved_step)
            write_meta(
                self.directory,
                saver.saved_step,
                {**meta, "metrics": metrics, "val_bpb": scores.get("val_bpb")},
            )
            sha256 = meta["files"][f"model_{saver.saved_step:06d}.pt"]["sha256"]
            record["checkpoint"] = {
                "path": str(self.directory),
                "step": saver.saved_step,
                "sha256": sha256,
            }
            write_record(SECTIONS[self.stage], record)
        return record
