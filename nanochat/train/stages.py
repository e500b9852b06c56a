"""The stages: each assembles model, batch source, optimizer and hooks, and lets the one Trainer
run.
"""

from __future__ import annotations

from typing import Any

from nanochat.checkpoint_manager import load_model
from nanochat.dataloader.documents import ConversationDocuments, ShardDocuments
from nanochat.gpt import GPT
from nanochat.runtime.precision import pick_dtype
from nanochat.runtime.world import World
from nanochat.tasks.base_prompts import BASE_PROMPTS
from nanochat.tokenizer import Tokenizer
from nanochat.train.configs import BaseConfig, ChatTrainConfig, MidConfig, SFTConfig
from nanochat.train.mixtures import chat_mixture
from nanochat.train.run import Run
from nanochat.train.settings import base_settings, chat_settings

CHAT_PROMPTS = (
    "Hello!",
    "Who are you?",
    "What is the capital of France?",
    "What is 37 * 12?",
    "Why is the sky blue?",
)


def base(cfg: BaseConfig, world: World) -> dict[str, Any]:
    """Pretrain on text shards. Returns the run's record (metrics, checkpoint, samples)."""
    from nanochat.dataset.shard_text import find_shards

    train_paths, validation_path = find_shards(cfg.data, cfg.skip_bad_shards)
    tokenizer = Tokenizer.from_pretrained(cfg.tokenizer) if cfg.tokenizer else Tokenizer.load()
    settings = base_settings(cfg, tokenizer.get_vocab_size(), world)
    model = GPT(settings.model_config).to(world.device)
    model.init_weights(cfg.seed)
    model.compute_dtype = pick_dtype(world.device)
    run = Run(
        "base",
        cfg,
        settings,
        model,
        tokenizer,
        world,
        tag=cfg.model_tag or f"d{cfg.depth}",
        prompts=BASE_PROMPTS,
    )
    return run.fit(
        ShardDocuments(train_paths, cfg.skip_bad_shards), ShardDocuments([validation_path])
    )


def mid(cfg: MidConfig, world: World) -> dict[str, Any]:
    """Teach a base model conversations and tools: every token of a conversation is trained on."""
    return _chat_stage("mid", cfg, world, masked=False)


def sft(cfg: SFTConfig, world: World) -> dict[str, Any]:
    """Fine-tune on conversations: only the assistant's tokens are trained on."""
    return _chat_stage("sft", cfg, world, masked=True)


def _chat_stage(stage: str, cfg: ChatTrainConfig, world: World, masked: bool) -> dict[str, Any]:
    train_task, validation_task = chat_mixture(stage, cfg)
    model, tokenizer, meta = load_model(
        cfg.source, world.device, "train", cfg.model_tag, cfg.step, context_tokens=cfg.max_seq_len
    )
    train = ConversationDocuments(train_task, seed=cfg.seed, masked=masked)
    validation = ConversationDocuments(validation_task, seed=cfg.seed, shuffle=False, masked=masked)
    settings = chat_settings(cfg, meta, world)
    parent = {
        "source": cfg.source,
        "directory": meta["directory"],
        "step": meta["step"],
        "files": meta.get("files"),
    }
    tag = cfg.tag_out or meta["directory"].rsplit("/", 1)[-1]
    run = Run(
        stage, cfg, settings, model, tokenizer, world, tag=tag, prompts=CHAT_PROMPTS, parent=parent
    )
    return run.fit(train, validation)
