"""`nanochat chat-web`: load the models, listen, serve until told to stop."""

from __future__ import annotations

from nanochat.runtime.world import World
from nanochat.serve.settings import ChatWebConfig, read_keys

__all__ = ["ChatWebConfig", "chat_web"]


def chat_web(config: ChatWebConfig, world: World) -> int:
    """Serve what `config` names; returns after SIGTERM or Ctrl+C. ValueError before anything is
    served.
    """
    from nanochat.serve.loading import load_service
    from nanochat.serve.server import Server, listen
    from nanochat.serve.web import build_app

    keys = [] if config.api_key_file is None else read_keys(config.api_key_file)
    with listen(config.host, config.port) as bound:
        service = load_service(config, world)
        shown = f"[{config.host.strip('[]')}]" if ":" in config.host else config.host
        said = (
            f"{', '.join(service.lanes)} at http://{shown}:{bound.getsockname()[1]} (Ctrl+C stops)"
        )
        server = Server(build_app(service, keys), service, lambda: print(said, flush=True))
        server.run(sockets=[bound])
    print("stopped", flush=True)
    return 0 if server.started else 1
