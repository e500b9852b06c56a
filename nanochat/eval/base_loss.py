"""Bits per byte of a checkpoint on training and validation text, and completions to read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.dataloader.documents import ShardDocuments
from nanochat.dataloader.loader import Batch, PackedLoader
from nanochat.dataset.shards import shard_paths
from nanochat.engine import Engine, SamplingParams
from nanochat.engine.finite import NonFiniteLogits
from nanochat.eval.bpb import bits_per_byte
from nanochat.eval.subject import SubjectConfig, open_subject
from nanochat.gpt import GPT
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.progress import Progress
from nanochat.runtime.world import World
from nanochat.tasks.base_prompts import BASE_PROMPTS, completes
from nanochat.tokenizer import Tokenizer

SAMPLE_TOKENS = 24


@dataclass
class BaseLossConfig(SubjectConfig):
    """Bits per byte on training and validation text, and a few completions."""

    device_batch_size: int = 32
    """Rows of one forward pass on a rank."""
    split_tokens: int = -1
    """Tokens of each split; -1 is 10,485,760 on a GPU and 262,144 on a CPU."""

    def problems(self) -> list[str]:
        found = []
        if self.device_batch_size < 1:
            found.append(f"--device-batch-size={self.device_batch_size}: must be at least 1")
        if self.split_tokens == 0 or self.split_tokens < -1:
            found.append(
                f"--split-tokens={self.split_tokens}: must be at least 1, or -1 to pick by device"
            )
        return found


def split_bpb(
    model: GPT,
    tokenizer: Tokenizer,
    paths: Sequence[Any],
    world: World,
    *,
    tokens: int,
    rows: int,
    name: str,
) -> float:
    """Bits per byte over about `tokens` tokens from the start of some shards. The same on every
    rank. NonFiniteLogits when they are no number.
    """
    seq_len = model.config.sequence_len
    rows = max(1, min(rows, tokens // (seq_len * world.world_size)))
    loader = PackedLoader.validation(
        ShardDocuments(paths),
        tokenizer,
        eval_tokens=tokens,
        rows_per_step=rows * world.world_size,
        seq_len=seq_len,
        device_batch_size=rows,
        rank=world.rank,
        world_size=world.world_size,
    )
    steps = loader.max_steps or 1
    try:
        with Progress(steps, f"bits per byte, {name}", enabled=world.is_main) as progress:

            def batches() -> Iterator[Batch]:
                for step in loader:
                    yield from step
                    progress.advance()

            bpb = bits_per_byte(model, batches(), tokenizer.token_bytes(), world)
        if not math.isfinite(bpb):
            raise NonFiniteLogits
        return bpb
    finally:
        loader.close()


def sample_completions(model: GPT, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Greedy completions of a few prompts -> [{"prompt", "completion", "correct"}]."""
    engine = Engine(model, tokenizer)
    bos = tokenizer.get_bos_token_id()
    params = SamplingParams(temperature=0.0, max_tokens=SAMPLE_TOKENS)
    prompts = [tokenizer.encode(prompt, prepend=bos) for prompt in BASE_PROMPTS]
    done = engine.complete([engine.submit(prompt, params) for prompt in prompts])
    return [
        {"prompt": prompt, "completion": answer.text, "correct": completes(prompt, answer.text)}
        for prompt, [answer] in zip(BASE_PROMPTS, done, strict=True)
    ]


def base_loss(cfg: BaseLossConfig, world: World) -> dict[str, float]:
    """`nanochat base-loss`: bits per byte of both splits and completions, printed, saved beside
    CORE -> the bits per byte by name.
    """
    train, validation = shard_paths(base_dir() / "base_data")
    subject = open_subject("base_eval", cfg, world)
    model, tokenizer = subject.model, subject.tokenizer
    default = 20 * 524288 if world.device.type == "cuda" else 2**18
    tokens = cfg.split_tokens if cfg.split_tokens > 0 else default
    with subject.watched():
        bpb = {
            name: split_bpb(
                model,
                tokenizer,
                paths,
                world,
                tokens=tokens,
                rows=cfg.device_batch_size,
                name=name,
            )
            for name, paths in (("train", train), ("val", [validation]))
        }
        completions = sample_completions(model, tokenizer) if world.is_main else []
    metrics = {f"{name}_bpb": value for name, value in bpb.items()}
    if world.is_main:
        for name, value in bpb.items():
            print(f"{name} bits per byte: {value:.4f} ({tokens:,} tokens)")
        for sample in completions:
            print(f"- {sample['prompt']} -> {sample['completion']!r}")
        document = subject.document({}, metrics=metrics, completions=completions)
        subject.results.save(document)
        subject.results.save_section("base_eval", document)
    world.barrier()
    return metrics
