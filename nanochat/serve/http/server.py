"""Running the application: the listening socket, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from nanochat.serve.work.service import Service

BACKLOG = 2048
KEEP_ALIVE_S = 15
LAST_WORDS_S = 5  # after the running answers were cut: for their last events to be sent


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, so that nobody else can have the address any more. ValueError when it
    cannot be had.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        fix = "choose another one with -p" if "in use" in str(error) else "check --host and -p"
        raise ValueError(
            f"--host={host} --port={port}: cannot listen there ({error.strerror}); {fix}"
        ) from None


class Server(uvicorn.Server):
    """uvicorn that drains the service before it closes, and returns instead of dying of the signal
    that ended it.
    """

    def __init__(
        self,
        app: FastAPI,
        service: Service,
        announce: Callable[[], None] | None = None,
        root_path: str = "",
    ) -> None:
        limit_s = int(service.drain_s) + LAST_WORDS_S
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                proxy_headers=False,  # anyone could claim to be many clients
                server_header=False,
                root_path=root_path,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=limit_s,
                # named, so that what else is installed changes nothing
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="on",
                backlog=BACKLOG,
            )
        )
        self.service = service
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.announce is not None:
            self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in getattr(self, "servers", ()):
            server.close()  # at once: `drain` may take a while
        draining = asyncio.ensure_future(self.service.drain())
        await super().shutdown(sockets)
        draining.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        try:
            old = {
                number: signal.signal(number, self.handle_exit)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:  # not the main thread: whoever runs us sets `should_exit`
            old = {}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
