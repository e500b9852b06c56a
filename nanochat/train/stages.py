"""The stages, each from top to bottom: load, build, resume, hooks, fit, record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from nanochat.checkpoint_manager import load_model
from nanochat.cost import checkpoint_bytes, flops_per_token
from nanochat.dataloader.documents import ConversationDocuments, ShardDocuments
from nanochat.dataloader.file_digest import file_digests
from nanochat.eval.generative import AnswerSampling
from nanochat.fp8 import check_fp8, use_fp8
from nanochat.gpt import GPT
from nanochat.optim.groups import parameter_groups
from nanochat.optim.optimizer import Optimizer
from nanochat.runtime.metric_log import MetricLog
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.preflight import preflight
from nanochat.runtime.world import World
from nanochat.tasks.base_prompts import BASE_PROMPTS
from nanochat.tokenizer import Tokenizer
from nanochat.train.announce import (
    announce,
    announce_generations,
    announce_mixture,
    announce_rollouts,
)
from nanochat.train.compiled import forward_pass
from nanochat.train.configs import BaseConfig, ChatTrainConfig, MidConfig, SFTConfig
from nanochat.train.derive import later_stage, pretraining, reinforcement
from nanochat.train.fallback import say, skipped_stages
from nanochat.train.frozen_copy import in_precision
from nanochat.train.hooks import CoreHook, LogHook, SampleHook, ValidationHook
from nanochat.train.interrupt import Interrupt
from nanochat.train.loaders import training_loader, validation_loader
from nanochat.train.micro_batch import choose_micro_batch
from nanochat.train.mixtures import chat_mixture
from nanochat.train.plan import chip_of
from nanochat.train.resume import Resumed, resume
from nanochat.train.rl_configs import RLConfig
from nanochat.train.rl_hooks import Examination, RolloutLog
from nanochat.train.rl_tasks import questions
from nanochat.train.rollouts import RolloutOptions, RolloutSource
from nanochat.train.run_facts import RunFacts, run_facts
from nanochat.train.run_folder import RunFolder
from nanochat.train.run_record import record_run
from nanochat.train.saving import SaveHook
from nanochat.train.shard_model import shard_model
from nanochat.train.supervise import fit
from nanochat.train.trainer import Source, Trainer

CHAT_PROMPTS = (
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "What is 37 * 12?",
    "Why is the sky blue?",
)


def base(cfg: BaseConfig, world: World) -> dict[str, Any]:
    """Pretrain on text shards. Returns the run's record (metrics, checkpoint, samples)."""
    from nanochat.dataset.text_source import find_shards

    started = time.time()
    # Load
    train_paths, validation_path = find_shards(cfg.data, cfg.skip_bad_shards)
    train = ShardDocuments(train_paths, cfg.skip_bad_shards)
    held_out = ShardDocuments([validation_path])
    tokenizer = Tokenizer.from_pretrained(cfg.tokenizer) if cfg.tokenizer else Tokenizer.load()
    # Build
    settings = pretraining(cfg, tokenizer.get_vocab_size(), world.device.type)
    folder = RunFolder("base", cfg.model_tag or f"d{cfg.depth}", world)
    folder.check(cfg, checkpoint_bytes(settings.model_config))
    micro = choose_micro_batch(cfg, settings, world)
    model = GPT(settings.model_config).to(world.device)
    model.init_weights(cfg.seed)
    model.compute_dtype = pick_dtype(world.device)
    if cfg.fp8:
        check_fp8(world.device)
        use_fp8(model)
    loader = training_loader(train, tokenizer, settings, micro, world)
    digests = file_digests([*train.paths, *held_out.paths]) if world.is_main else {}
    facts = run_facts(
        "base",
        cfg,
        settings,
        micro,
        tokenizer,
        n_steps=settings.n_steps,
        data=world.broadcast_object(digests),
    )
    trainer = build_trainer(model, loader, facts, world, compile=cfg.compile)
    # Resume
    resumed = resume(trainer, folder, facts)
    announce(facts, trainer)
    announce_generations(cfg, settings, world)
    with folder.open_log(cfg, tokenizer, trainer.step) as log:
        # Hooks
        saver = save_hook(folder, facts, resumed)
        held_out_loader = validation_loader(
            held_out, tokenizer, settings, micro, world, cfg.eval_tokens
        )
        validation = ValidationHook(held_out_loader, tokenizer.token_bytes(), cfg.eval_every, log)
        validation.recall(folder.history)
        sampling = SampleHook(tokenizer, BASE_PROMPTS, cfg.sample_every, log, chat=False)
        core = CoreHook(tokenizer, cfg.core_metric_every, cfg.core_metric_max_per_task, log)
        trainer.hooks = [log_hook(log, facts, world), saver, validation, sampling, core]
        # Fit
        fit(trainer, saver, resumed)
    loader.close()
    # Record
    scores = {**validation.scores, **({"bad_shards": len(train.bad)} if train.bad else {})}
    return record_run(
        facts, folder, trainer, saver, started=started, scores=scores, samples=sampling.samples
    )


def mid(cfg: MidConfig, world: World) -> dict[str, Any]:
    """Teach a base model conversations and tools: every token of a conversation is trained on."""
    return chat("mid", cfg, world, masked=False)


def sft(cfg: SFTConfig, world: World) -> dict[str, Any]:
    """Fine-tune on conversations: only the assistant's tokens are trained on."""
    return chat("sft", cfg, world, masked=True)


def chat(
    stage: Literal["mid", "sft"], cfg: ChatTrainConfig, world: World, *, masked: bool
) -> dict[str, Any]:
    """What midtraining and fine-tuning both are: a checkpoint that learns conversations."""
    started = time.time()
    # Load
    mixture = chat_mixture(stage, cfg)
    notice = "\n".join(filter(None, [mixture.notice, skipped_stages(stage, cfg.source)]))
    say(notice)
    model, tokenizer, meta = load_model(
        cfg.source, world.device, "train", cfg.model_tag, cfg.step, context_tokens=cfg.max_seq_len
    )
    train = ConversationDocuments(mixture.train, seed=cfg.seed, masked=masked)
    held_out = ConversationDocuments(mixture.held_out, seed=cfg.seed, shuffle=False, masked=masked)
    # Build
    settings = later_stage(cfg, meta)
    folder = RunFolder(stage, cfg.tag_out or Path(meta["directory"]).name, world)
    folder.check(cfg, checkpoint_bytes(model.config), source=meta)
    micro = choose_micro_batch(cfg, settings, world)
    loader = training_loader(train, tokenizer, settings, micro, world)
    n_steps = settings.n_steps or loader.estimate_steps(cfg.num_epochs)
    facts = run_facts(
        stage,
        cfg,
        settings,
        micro,
        tokenizer,
        n_steps=n_steps,
        source=meta,
        mixture=mixture.table(),
    )
    trainer = build_trainer(model, loader, facts, world, compile=cfg.compile)
    # Resume
    resumed = resume(trainer, folder, facts)
    announce(facts, trainer)
    announce_mixture(mixture, world)
    with folder.open_log(cfg, tokenizer, trainer.step) as log:
        # Hooks
        saver = save_hook(folder, facts, resumed)
        held_out_loader = validation_loader(
            held_out, tokenizer, settings, micro, world, cfg.eval_tokens
        )
        validation = ValidationHook(held_out_loader, tokenizer.token_bytes(), cfg.eval_every, log)
        validation.recall(folder.history)
        sampling = SampleHook(tokenizer, CHAT_PROMPTS, cfg.sample_every, log, chat=True)
        trainer.hooks = [log_hook(log, facts, world), saver, validation, sampling]
        # Fit
        fit(trainer, saver, resumed)
    loader.close()
    # Record
    say(notice)
    return record_run(
        facts,
        folder,
        trainer,
        saver,
        started=started,
        scores=validation.scores,
        samples=sampling.samples,
    )


def rl(cfg: RLConfig, world: World) -> dict[str, Any]:
    """Let the model answer questions and make the better answers likelier. Returns the run's
    record.

    Raises ValueError for a missing checkpoint or a data set that is absent.
    """
    started = time.time()
    # Load
    asked = questions(cfg.task, cfg.seed, cfg.device_type, cfg.sql_data)
    notice = "\n".join(filter(None, [asked.notice, skipped_stages("rl", cfg.source)]))
    say(notice)
    model, tokenizer, meta = load_model(cfg.source, world.device, "train", cfg.model_tag, cfg.step)
    # Build
    settings = reinforcement(cfg, meta, len(asked.train))
    folder = RunFolder("rl", cfg.tag_out or Path(meta["directory"]).name, world)
    folder.check(cfg, checkpoint_bytes(model.config), source=meta)
    micro = choose_micro_batch(cfg, settings, world, fixed_step=False)
    facts = run_facts(
        "rl",
        cfg,
        settings,
        micro,
        tokenizer,
        n_steps=settings.n_steps,
        source=meta,
        data={asked.train.name: asked.train.content().digest, **starting_model(meta)},
    )
    # The starting model, before a resume puts later weights in its place.
    reference = in_precision(model, model.compute_dtype or model.lm_head.weight.dtype)
    options = RolloutOptions.of(cfg, world.device.type, micro.device_batch_size * settings.seq_len)
    interrupt = Interrupt(world)
    source = RolloutSource(model, tokenizer, asked.train, interrupt.guarded(), options, reference)
    trainer = build_trainer(model, source, facts, world, compile=False, interrupt=interrupt)
    # Resume
    resumed = resume(trainer, folder, facts)
    announce_rollouts(facts, cfg, trainer)
    with folder.open_log(cfg, tokenizer, trainer.step) as log:
        # Hooks
        saver = save_hook(folder, facts, resumed)
        # The model itself, whatever it explores with: temperature 1, every token.
        sampling = AnswerSampling(
            max_new_tokens=cfg.max_new_tokens,
            temperature=1.0,
            top_k=None,
            num_samples=cfg.eval_samples,
            seed=cfg.seed,
        )
        exam = Examination(source, asked.held_out, cfg.eval_examples, sampling, cfg.eval_every, log)
        exam.recall(folder.history)
        trainer.hooks = [LogHook(log), RolloutLog(source, log), saver, exam]
        # Fit
        if cfg.eval_every and not trainer.step:
            exam.evaluate(trainer, model, world)
        fit(trainer, saver, resumed)
    # Record
    say(notice)
    scores = {**exam.scores, **source.stats}
    return record_run(
        facts, folder, trainer, saver, started=started, scores=scores, samples=source.samples
    )


def build_trainer(
    model: GPT,
    source: Source,
    facts: RunFacts,
    world: World,
    *,
    compile: bool | None,
    interrupt: Interrupt | None = None,
) -> Trainer:
    """The loop at its beginning, without hooks; the model is put on the devices as the micro-batch
    says.
    """
    settings, micro = facts.settings, facts.micro
    assert model.config == settings.model_config, "a checkpoint must describe the trained model"
    preflight(world)
    model.activation_checkpointing = micro.activation_checkpointing
    if micro.shard_model:
        shard_model(model, world)
    elif facts.cfg.shard_model:
        print(
            "--shard-model: a single process has nobody to share the model with; going on without",
            flush=True,
        )
    return Trainer(
        model,
        source,
        Optimizer(parameter_groups(model, settings.optim), world),
        settings.schedule(facts.n_steps),
        world,
        grad_clip=settings.grad_clip,
        forward=forward_pass(model, compile, facts.n_steps * settings.total_batch_size),
        description=facts.stage,
        interrupt=interrupt,
    )


def starting_model(meta: dict[str, Any]) -> dict[str, str]:
    """What reinforcement learning pulls towards, as data that must not change. Public checkpoints
    have no hash.
    """
    model = (meta.get("files") or {}).get(f"model_{meta['step']:06d}.pt", {})
    return {"the starting model": model["sha256"]} if "sha256" in model else {}


def log_hook(log: MetricLog, facts: RunFacts, world: World) -> LogHook:
    """Knows the work of a token and the peak of these devices, where that is public."""
    settings, chip = facts.settings, chip_of(world)
    peak = chip.tflops * 1e12 * world.world_size if chip and chip.tflops else None
    return LogHook(log, flops_per_token(settings.model_config, settings.seq_len), peak)


def save_hook(folder: RunFolder, facts: RunFacts, resumed: Resumed) -> SaveHook:
    cfg = facts.cfg
    return SaveHook(
        folder.path,
        facts.meta(),
        every=cfg.save_every,
        every_s=cfg.save_every_s,
        keep=cfg.keep,
        saved_step=resumed.step,
    )
