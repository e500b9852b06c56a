"""`nanochat chat-web`: listen, load the models, serve until told to stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from nanochat.checkpoint_manager import find_checkpoint, load_tokenizer, read_meta
from nanochat.model_spec import ModelSpec
from nanochat.runtime.world import World
from nanochat.serve.http.app import build_app
from nanochat.serve.http.server import Server, listen
from nanochat.serve.web_config import ChatWebConfig, read_keys, read_upstream_key
from nanochat.serve.work.loading import EngineSetup, load_engine
from nanochat.serve.work.process_worker import ProcessWorker, devices
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.service import Defaults, Service
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.serve.work.upstream import Upstream
from nanochat.serve.work.upstream_worker import UpstreamWorker
from nanochat.serve.work.worker import ThreadWorker, Worker


def chat_web(config: ChatWebConfig, world: World) -> int:
    """Serve what `config` names; returns after SIGTERM or Ctrl+C. ValueError before anything is
    served.
    """
    keys = [] if config.api_key_file is None else read_keys(config.api_key_file)
    with listen(config.host, config.port) as bound:  # first: loading takes long, a taken port none
        service = load_service(config, world)
        host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        where = f"http://{host}:{bound.getsockname()[1]}"
        said = f"{', '.join(service.models)} at {where} (Ctrl+C stops)"
        app = build_app(service, keys, config.allow_origin)
        server = Server(app, service, lambda: print(said, flush=True))
        server.run(sockets=[bound])
    print("stopped", flush=True)
    return 0 if server.started else 1


def load_service(config: ChatWebConfig, world: World) -> Service:
    """Everything `config` names, loaded and not yet started. ValueError when a checkpoint is
    missing or damaged.
    """
    service = Service(
        models={},
        metrics=ServingMetrics(),
        defaults=Defaults(
            temperature=config.temperature, top_k=config.top_k, max_tokens=config.max_tokens
        ),
        drain_s=config.drain_s,
    )
    for spec in config.specs():
        directory, step, _ = find_checkpoint(spec.source, spec.tag, spec.step)
        name = f"{spec.source}:{directory.name}"
        if name in service.models:
            name = f"{name}:{step}"
        if name in service.models:
            raise ValueError(f"--model: {name} is named twice")
        setup = EngineSetup(
            spec=ModelSpec(spec.source, directory.name, step),
            device=str(world.device),
            int8=config.int8,
            max_running=config.max_running,
        )
        service.models[name] = ServedModel(
            model_card(name, directory, step),
            load_workers(setup, config.num_gpus, world),
            service.metrics,
            slots=config.max_running,
            max_queue=config.max_queue,
            time_limit_s=config.time_limit_s,
        )
        service.aliases.setdefault(spec.source, name)
        service.aliases[f"{name}:{step}"] = name
    if config.upstream is not None:
        service.models |= upstream_models(config, service.metrics)
    return service


def upstream_models(config: ChatWebConfig, metrics: ServingMetrics) -> dict[str, ServedModel]:
    """The models of --upstream by name. ValueError when it cannot be asked."""
    assert config.upstream is not None
    key = None if config.upstream_key_file is None else read_upstream_key(config.upstream_key_file)
    upstream = Upstream(url=config.upstream.rstrip("/"), key=key)
    return {
        card.name: ServedModel(
            card,
            [UpstreamWorker(upstream, card.name, metrics.upstream_failure(card.name))],
            metrics,
            slots=config.max_running,
            max_queue=config.max_queue,
            time_limit_s=config.time_limit_s,
        )
        for card in upstream.model_cards()
    }


def model_card(name: str, directory: Path, step: int) -> ModelCard:
    meta = read_meta(directory, step)
    return ModelCard(
        name=name,
        tokenizer=load_tokenizer(directory, meta),
        context=meta["model_config"]["sequence_len"],
        vocab_size=meta["model_config"]["vocab_size"],
        created=int((directory / f"meta_{step:06d}.json").stat().st_mtime),
        step=step,
    )


def load_workers(setup: EngineSetup, num_gpus: int, world: World) -> list[Worker]:
    """One worker in this process, or with `num_gpus` above 1 that many processes."""
    if num_gpus == 1:
        return [ThreadWorker(load_engine(setup), str(setup.spec))]
    threads = max(1, torch.get_num_threads() // num_gpus) if world.device.type == "cpu" else 0
    workers = [
        ProcessWorker(replace(setup, device=place, threads=threads), index)
        for index, place in enumerate(devices(world.device, num_gpus))
    ]
    for worker in workers:
        worker.wait()
    return list(workers)
