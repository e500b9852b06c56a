"""The loaders of a run: endless batches to train on, a fixed set of them to validate on."""

from __future__ import annotations

from nanochat.dataloader.documents import Documents
from nanochat.dataloader.loader import PackedLoader
from nanochat.runtime.world import World
from nanochat.tokenizer import Tokenizer
from nanochat.train.derive import Settings
from nanochat.train.micro_batch import MicroBatch

VALIDATION_TOKENS = 8192  # of a validation batch at most: it is small, its steps need no gradients


def training_loader(
    documents: Documents, tokenizer: Tokenizer, settings: Settings, micro: MicroBatch, world: World
) -> PackedLoader:
    return PackedLoader(
        documents,
        tokenizer,
        rows_per_step=settings.rows_per_step,
        seq_len=settings.seq_len,
        device_batch_size=micro.device_batch_size,
        rank=world.rank,
        world_size=world.world_size,
    )


def validation_loader(
    documents: Documents,
    tokenizer: Tokenizer,
    settings: Settings,
    micro: MicroBatch,
    world: World,
    eval_tokens: int,
) -> PackedLoader:
    """At most one pass over `documents`, at most about `eval_tokens`."""
    rows = max(
        world.world_size, min(settings.rows_per_step, VALIDATION_TOKENS // settings.seq_len or 1)
    )
    return PackedLoader.validation(
        documents,
        tokenizer,
        eval_tokens=eval_tokens,
        rows_per_step=rows,
        seq_len=settings.seq_len,
        device_batch_size=micro.device_batch_size,
        rank=world.rank,
        world_size=world.world_size,
        prefetch=False,
    )
