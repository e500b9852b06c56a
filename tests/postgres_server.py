"""A PostgreSQL of our own on loopback, from Debian's package: started by the tests, gone after."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HOW = "apt-get install postgresql"


class NoPostgres(Exception):
    """It is not installed, or there is no user who may run it."""


def program(name: str) -> str:
    """A program of PostgreSQL, the newest there is. NoPostgres."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(places[-1]) if places else shutil.which(name)
    if found is None:
        raise NoPostgres(f"PostgreSQL is not installed ({HOW})")
    return found


def runner() -> dict[str, int]:
    """As whom it runs: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid}
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of a server, without a database's name: f"{address}/name". NoPostgres."""
    initdb, server, user = program("initdb"), program("postgres"), runner()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a test needs no disk
    folder = Path(tempfile.mkdtemp(prefix="nanochat-postgres-", dir=memory))
    if user:
        os.chown(folder, user["user"], user["group"])
    data = folder / "data"
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
    try:
        subprocess.run(
            [
                initdb,
                "-D",
                data,
                "-U",
                "nanochat",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            ],
            check=True,
            **quiet,
        )
        settings = [f"unix_socket_directories={folder}", "max_connections=60", "jit=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        with open(folder / "log", "wb") as log:
            running = subprocess.Popen(
                [server, "-D", data, "-h", "127.0.0.1", "-p", str(port), *words],
                stderr=log,
                **quiet,
            )
        try:
            address = f"postgresql://nanochat@127.0.0.1:{port}"
            wait_for(address, running)
            yield address
        finally:
            running.terminate()
            running.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(address: str, running: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    import psycopg

    end = time.monotonic() + seconds
    while True:
        assert running.poll() is None, "PostgreSQL ended at once"
        try:
            psycopg.connect(f"{address}/postgres").close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)


def new_database(address: str, name: str) -> str:
    """The address of a new, empty database."""
    import psycopg

    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{address}/{name}"
