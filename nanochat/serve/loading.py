"""From the settings to a service: checkpoints found, loaded, and given to workers."""

from __future__ import annotations

import torch

from nanochat.checkpoint_manager import find_checkpoint, load_model, load_tokenizer, read_meta
from nanochat.engine import Engine
from nanochat.engine.quantize import quantize_int8
from nanochat.runtime.world import World
from nanochat.serve.lane import Lane, ModelInfo
from nanochat.serve.metrics import Metrics
from nanochat.serve.service import Defaults, Service
from nanochat.serve.settings import ChatWebConfig, ModelSpec
from nanochat.serve.worker import ThreadWorker, Worker

MIN_STEP_TOKENS = 512


def load_service(config: ChatWebConfig, world: World) -> Service:
    """Everything `config` names, loaded and not yet started. ValueError when a checkpoint is
    missing or damaged.
    """
    metrics = Metrics()
    lanes: dict[str, Lane] = {}
    aliases: dict[str, str] = {}
    for spec in config.specs():
        directory, step, _ = find_checkpoint(spec.source, spec.tag, spec.step)
        exact = ModelSpec(spec.source, directory.name, step)
        meta = read_meta(directory, step)
        name = f"{spec.source}:{directory.name}"
        if name in lanes:
            name = f"{name}:{step}"
        if name in lanes:
            raise ValueError(f"--model: {name} is named twice")
        sizes = meta["model_config"]
        info = ModelInfo(
            name,
            load_tokenizer(directory, meta),
            sizes["sequence_len"],
            sizes["vocab_size"],
            int((directory / f"meta_{step:06d}.json").stat().st_mtime),
            step,
        )
        lanes[name] = Lane(
            info,
            load_workers(exact, config, world),
            metrics,
            slots=config.max_running,
            max_queue=config.max_queue,
            time_limit_s=config.time_limit_s,
        )
        aliases.setdefault(spec.source, name)
        aliases[f"{name}:{step}"] = name
    defaults = Defaults(config.temperature, config.top_k, config.max_tokens)
    return Service(lanes, metrics, defaults, config.drain_s, aliases)


def load_workers(spec: ModelSpec, config: ChatWebConfig, world: World) -> list[Worker]:
    """One worker in this process, or with --num-gpus above 1 that many processes."""
    if config.num_gpus == 1:
        return [ThreadWorker(load_engine(spec, str(world.device), config.int8, config.max_running))]
    from nanochat.serve.process_worker import ProcessWorker, devices

    places = devices(world.device, config.num_gpus)
    threads = (
        max(1, torch.get_num_threads() // config.num_gpus) if world.device.type == "cpu" else 0
    )
    how = (config.int8, config.max_running)
    workers = [
        ProcessWorker(spec, place, *how, number, threads) for number, place in enumerate(places)
    ]
    for worker in workers:
        worker.wait()
    return list(workers)


def load_engine(spec: ModelSpec, device: str, int8: bool, max_running: int) -> Engine:
    model, tokenizer, _ = load_model(
        spec.source, device, phase="eval", model_tag=spec.tag, step=spec.step
    )
    if int8:
        quantize_int8(model)
    return Engine(
        model, tokenizer, max_running=max_running, max_step_tokens=max(MIN_STEP_TOKENS, max_running)
    )
