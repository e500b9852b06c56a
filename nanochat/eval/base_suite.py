"""Evaluation of a base model: CORE, bits per byte on training and validation text, and completions
to read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from nanochat.checkpoint_manager import load_model
from nanochat.config import Short
from nanochat.dataloader.documents import ShardDocuments
from nanochat.dataloader.loader import PackedLoader
from nanochat.dataset.shards import shard_paths
from nanochat.engine import Engine, SamplingParams
from nanochat.eval.bpb import bits_per_byte
from nanochat.eval.core import evaluate_core, read_bundle
from nanochat.eval.results import save_results, table, write_section
from nanochat.gpt import GPT
from nanochat.runtime.progress import Progress
from nanochat.runtime.run_dir import base_dir
from nanochat.runtime.world import World
from nanochat.tasks.base_prompts import BASE_PROMPTS, completes
from nanochat.tokenizer import Tokenizer

SAMPLE_TOKENS = 24
Source = Literal["base", "mid", "sft", "rl"]


@dataclass
class BaseEvalConfig:
    """CORE (arXiv 2406.11794): 22 few-shot tasks, each centred on blind guessing."""

    max_per_task: int = -1
    """Examples of each task; -1 for all."""
    source: Annotated[Source, Short("-i")] = "base"
    """Stage whose checkpoint is evaluated."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    eval_bundle: str = ""
    """Folder with core.yaml; <base>/eval_bundle when empty."""
    tasks: str = ""
    """Labels of some tasks, separated by |; all when empty. CORE itself needs all."""
    max_tokens: int = -1
    """Tokens forwarded at once; -1 picks by device."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""

    def problems(self) -> list[str]:
        found = []
        if self.max_per_task == 0 or self.max_per_task < -1:
            found.append(f"--max-per-task={self.max_per_task}: must be at least 1, or -1 for all")
        if self.max_tokens == 0 or self.max_tokens < -1:
            found.append(
                f"--max-tokens={self.max_tokens}: must be at least 1, or -1 to pick by device"
            )
        return found


@dataclass
class BaseLossConfig:
    """Bits per byte on training and validation text, and a few completions."""

    device_batch_size: int = 32
    """Rows of one forward pass on a rank."""
    split_tokens: int = -1
    """Tokens of each split; -1 is 10,485,760 on a GPU and 262,144 on a CPU."""
    source: Annotated[Source, Short("-i")] = "base"
    """Stage whose checkpoint is evaluated."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which checkpoint, such as d20."""
    step: Annotated[int | None, Short("-s")] = None
    """Which step; the newest when not given."""
    device_type: str = ""
    """cuda, cpu or mps; the best there is when empty."""

    def problems(self) -> list[str]:
        found = []
        if self.device_batch_size < 1:
            found.append(f"--device-batch-size={self.device_batch_size}: must be at least 1")
        if self.split_tokens == 0 or self.split_tokens < -1:
            found.append(
                f"--split-tokens={self.split_tokens}: must be at least 1, or -1 to pick by device"
            )
        return found


def base_eval(cfg: BaseEvalConfig, world: World) -> dict[str, Any]:
    """`nanochat base-eval`: CORE of a checkpoint, printed, in its results file and in the
    report."""
    labels = [label.strip() for label in cfg.tasks.split("|") if label.strip()]
    bundle = cfg.eval_bundle or None
    read_bundle(bundle)  # what is missing is said before a large model is loaded
    model, tokenizer, meta = load_model(cfg.source, world.device, "eval", cfg.model_tag, cfg.step)
    max_tokens = cfg.max_tokens if cfg.max_tokens > 0 else None
    outcome = evaluate_core(model, tokenizer, world, cfg.max_per_task, bundle, labels, max_tokens)
    settings = {
        **asdict(cfg),
        "compute_dtype": str(model.compute_dtype),
        "world_size": world.world_size,
    }
    tasks = {label: {**entry, "settings": settings} for label, entry in outcome["tasks"].items()}
    metrics = (
        {} if labels else {"CORE": outcome["core"]}
    )  # a mean over some of the tasks is not CORE
    document: dict[str, Any] = {"tasks": tasks, "metrics": metrics}
    if world.is_main:
        means = {name: tuple(tasks) for name in metrics}
        path, document = save_results("base_eval", meta, tokenizer, tasks, means=means)
        print("\n" + table(tasks, tasks))
        print(
            f"CORE {outcome['core']:.4f}"
            if not labels
            else f"CORE: not computed, only {len(labels)} tasks were run"
        )
        print(f"results: {path}")
        write_section("base_eval", document)
    world.barrier()
    return document


def core_metric(
    model: GPT, tokenizer: Tokenizer, world: World, max_per_task: int = -1
) -> float | None:
    """CORE of a model in training, for its hook. A missing eval bundle is said and gives None:
    hours of training must not end over it. Leaves the model in its own mode.
    """
    was_training = model.training
    model.eval()
    try:
        read_bundle()
        return float(evaluate_core(model, tokenizer, world, max_per_task)["core"])
    except ValueError as error:
        if world.is_main:
            print(f"warning: CORE is not measured: {error}", file=sys.stderr, flush=True)
        return None
    finally:
        model.train(was_training)


def split_bpb(
    model: GPT,
    tokenizer: Tokenizer,
    paths: Sequence[Any],
    world: World,
    tokens: int,
    rows: int,
    name: str,
) -> float:
    """Bits per byte over about `tokens` tokens from the start of some shards. The same on every
    rank.
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

            def batches() -> Any:
                for step in loader:
                    yield from step
                    progress.advance()

            return bits_per_byte(model, batches(), tokenizer.token_bytes(), world)
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


def base_loss(cfg: BaseLossConfig, world: World) -> dict[str, Any]:
    """`nanochat base-loss`: bits per byte of both splits and completions, printed, saved beside
    CORE.
    """
    train, validation = shard_paths(base_dir() / "base_data")
    model, tokenizer, meta = load_model(cfg.source, world.device, "eval", cfg.model_tag, cfg.step)
    default = 20 * 524288 if world.device.type == "cuda" else 2**18
    tokens = cfg.split_tokens if cfg.split_tokens > 0 else default
    bpb = {
        name: split_bpb(model, tokenizer, paths, world, tokens, cfg.device_batch_size, name)
        for name, paths in (("train", train), ("val", [validation]))
    }
    metrics = {
        f"{name}_bpb": value if math.isfinite(value) else None for name, value in bpb.items()
    }
    document: dict[str, Any] = {"tasks": {}, "metrics": metrics}
    if world.is_main:
        completions = sample_completions(model, tokenizer)
        path, document = save_results(
            "base_eval", meta, tokenizer, {}, metrics, completions=completions
        )
        for name, value in bpb.items():
            print(f"{name} bits per byte: {value:.4f} ({tokens:,} tokens)")
        for sample in completions:
            print(f"- {sample['prompt']} -> {sample['completion']!r}")
        print(f"results: {path}")
        write_section("base_eval", document)
    world.barrier()
    return document
