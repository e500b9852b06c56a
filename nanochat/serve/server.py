"""Running the application: the listening socket, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from nanochat.serve.service import Service

KEEP_ALIVE_S = 15
LAST_WORDS_S = 5  # after the running answers were cut: for their last events to be sent


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. ValueError when the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        fix = "choose another one with -p" if "in use" in str(error) else "check --host and -p"
        raise ValueError(
            f"--host={host} --port={port}: cannot listen there ({error.strerror}); {fix}"
        ) from None
    return bound


class Server(uvicorn.Server):
    """uvicorn that drains the service before it closes, and returns instead of dying of the signal
    that ended it.
    """

    def __init__(
        self, app: FastAPI, service: Service, announce: Callable[[], None] | None = None
    ) -> None:
        limit_s = int(service.drain_s) + LAST_WORDS_S
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                proxy_headers=False,  # anyone could claim to be many clients
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=limit_s,
                ws="none",
            )
        )
        self.service, self.announce = service, announce

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
                number: signal.signal(number, self.stop)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:  # not the main thread: whoever runs us sets `should_exit`
            old = {}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """First signal: finish what is running. A second Ctrl+C: do not."""
        if self.should_exit and number == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
