"""Checkpoints loaded as the server was told to: on which device, how many workers, which limits."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nanochat.checkpoint_manager import (
    FOLDERS,
    complete_steps,
    find_checkpoint,
    load_tokenizer,
    read_meta,
)
from nanochat.model_spec import ModelSpec
from nanochat.runtime.base_dir import base_dir
from nanochat.serve.work.loading import EngineSetup, load_engine
from nanochat.serve.work.process_worker import ProcessWorker, devices
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.serve.work.worker import ThreadWorker, Worker


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Makes served models of checkpoints. Loading takes a while: not in the event loop."""

    device: torch.device
    metrics: ServingMetrics
    int8: bool = False
    num_gpus: int = 1
    max_running: int = 32
    max_queue: int = 256
    time_limit_s: float = 600.0

    def load(self, spec: ModelSpec, served: Collection[ModelCard]) -> ServedModel:
        """The checkpoint, not yet started, under stage:tag or, where one of `served` has that
        name, stage:tag:step. ValueError when it is missing or damaged, or served already.
        """
        directory, step, _ = find_checkpoint(spec.source, spec.tag, spec.step)
        name = f"{spec.source}:{directory.name}"
        whole_name = f"{name}:{step}"
        for card in served:
            if not card.remote and whole_name in (card.name, f"{card.name}:{card.step}"):
                raise ValueError(f"{whole_name}: is served already, as {card.name}")
        if name in [card.name for card in served]:
            name = whole_name
        setup = EngineSetup(
            spec=ModelSpec(spec.source, directory.name, step),
            device=str(self.device),
            int8=self.int8,
            max_running=self.max_running,
        )
        return ServedModel(
            model_card(name, directory, step),
            load_workers(setup, self.num_gpus, self.device),
            self.metrics,
            slots=self.max_running,
            max_queue=self.max_queue,
            time_limit_s=self.time_limit_s,
        )


def model_card(name: str, directory: Path, step: int) -> ModelCard:
    meta = read_meta(directory, step)
    about = directory / f"meta_{step:06d}.json"  # with the weights' SHA-256 in it
    return ModelCard(
        name=name,
        tokenizer=load_tokenizer(directory, meta),
        context=meta["model_config"]["sequence_len"],
        vocab_size=meta["model_config"]["vocab_size"],
        created=int(about.stat().st_mtime),
        step=step,
        checkpoint_hash=hashlib.sha256(about.read_bytes()).hexdigest(),
    )


def load_workers(setup: EngineSetup, num_gpus: int, device: torch.device) -> list[Worker]:
    """One worker in this process, or with `num_gpus` above 1 that many processes."""
    if num_gpus == 1:
        return [ThreadWorker(load_engine(setup), str(setup.spec))]
    threads = max(1, torch.get_num_threads() // num_gpus) if device.type == "cpu" else 0
    workers = [
        ProcessWorker(replace(setup, device=place, threads=threads), index)
        for index, place in enumerate(devices(device, num_gpus))
    ]
    for worker in workers:
        worker.wait()
    return list(workers)


def loadable() -> list[str]:
    """The checkpoints of the base directory, as stage:tag:step, newest steps first."""
    found = []
    for source, folder in FOLDERS.items():
        for directory in sorted((base_dir() / folder).glob("*")):
            if directory.is_dir():
                steps = reversed(complete_steps(directory))
                found += [f"{source}:{directory.name}:{step}" for step in steps]
    return found
