"""`nanochat chat-web`: listen, load the models, serve until told to stop."""

from __future__ import annotations

import socket

from nanochat.runtime.world import World
from nanochat.serve.http.app import build_app
from nanochat.serve.http.oidc_settings import OIDCSettings
from nanochat.serve.http.server import Server, listen
from nanochat.serve.json_log import log_as_json
from nanochat.serve.web_config import (
    FIRST_ADMIN,
    ChatWebConfig,
    is_loopback,
    read_keys,
    read_upstream_key,
)
from nanochat.serve.work.model_loader import ModelLoader
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.service import Defaults, Service
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.serve.work.storage import Storage
from nanochat.serve.work.upstream import Upstream
from nanochat.serve.work.upstream_worker import UpstreamWorker
from nanochat.store import users
from nanochat.store.database import Database, chosen_url
from nanochat.store.left_behind import mark_cut
from nanochat.store.upgrading import upgrade


def chat_web(config: ChatWebConfig, world: World) -> int:
    """Serve what `config` names; returns after SIGTERM or Ctrl+C. ValueError before anything is
    served.
    """
    if config.log_json:
        log_as_json()
    keys = [] if config.api_key_file is None else read_keys(config.api_key_file)
    with listen(config.host, config.port) as bound:  # first: loading takes long, a taken port none
        port = bound.getsockname()[1]
        name = f"{socket.gethostname()}:{port}"
        storage = None if config.database == "off" else open_storage(config, name)
        service = load_service(config, world)
        host = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        said = f"{', '.join(service.models)} at http://{host}:{port} (Ctrl+C stops)"
        if storage is not None and not keys and not storage.database.reading(users.any_accounts):
            said += f"\nfor you on this machine; for a team, make accounts: {FIRST_ADMIN}"
        app = build_app(
            service,
            keys,
            config.allow_origin,
            storage=storage,
            server_name=name,
            oidc=oidc_settings(config),
        )
        server = Server(app, service, lambda: print(said, flush=True), config.root_path)
        server.run(sockets=[bound])
    print("stopped", flush=True)
    return 0 if server.started else 1


def open_storage(config: ChatWebConfig, name: str) -> Storage:
    """The database, brought up to date, with what a killed server of this name left behind marked
    as such. ValueError when it cannot be opened, or nothing in it would keep others out.
    """
    database = Database(chosen_url(config.database))
    said = upgrade(database)
    if "copy" in said:
        print(said, flush=True)
    if not is_loopback(config.host) and not (config.api_key_file or config.oidc_issuer):
        if not database.reading(users.any_accounts):
            raise ValueError(config.host_problem())
    database.writing(mark_cut, name, config.time_limit_s)
    return Storage(database)


def oidc_settings(config: ChatWebConfig) -> OIDCSettings | None:
    """The provider to sign in with, where one is named."""
    if config.oidc_issuer is None:
        return None
    assert config.oidc_client_id is not None and config.oidc_client_secret_file is not None
    return OIDCSettings(
        issuer=config.oidc_issuer,
        client_id=config.oidc_client_id,
        client_secret=read_upstream_key(config.oidc_client_secret_file),
        domains=tuple(domain.lower() for domain in config.oidc_domain),
        public_url=config.public_url,
    )


def load_service(config: ChatWebConfig, world: World) -> Service:
    """Everything `config` names, loaded and not yet started. ValueError when a checkpoint is
    missing or damaged.
    """
    metrics = ServingMetrics()
    loader = ModelLoader(
        device=world.device,
        metrics=metrics,
        int8=config.int8,
        num_gpus=config.num_gpus,
        max_running=config.max_running,
        max_queue=config.max_queue,
        time_limit_s=config.time_limit_s,
    )
    service = Service(
        models={},
        metrics=metrics,
        loader=loader,
        defaults=Defaults(
            temperature=config.temperature, top_k=config.top_k, max_tokens=config.max_tokens
        ),
        drain_s=config.drain_s,
    )
    for spec in config.specs():
        model = loader.load(spec, [served.card for served in service.models.values()])
        service.models[model.card.name] = model
    if config.upstream is not None:
        service.models |= upstream_models(config, metrics)
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
