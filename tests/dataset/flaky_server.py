"""A local file server that misbehaves on request: fails, resets, truncates, stalls, ignores or
refuses Range.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FlakyServer:
    """Serves `root`. `plan[name]` lists what happens to the next requests for that file; then all
    goes well.

    Behaviours: an HTTP status (int), "reset", "truncate", "chunked" (no length, cut), "stall",
    "corrupt", "no-range", "wrong-range". `requests` holds (name, Range header) of every request.
    """

    def __init__(self, root: Path):
        self.root = root
        self.plan: dict[str, list] = defaultdict(list)
        self.requests: list[tuple[str, str | None]] = []
        self.linked_etag = False
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self._http.shutdown()
        self._http.server_close()

    def _next(self, name: str, wanted: str | None):
        with self._lock:
            self.requests.append((name, wanted))
            return self.plan[name].pop(0) if self.plan[name] else None

    def _handler(server):  # noqa: N805 - the handler's own self is another object
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args) -> None:
                pass

            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                path = server.root / name
                how = server._next(name, self.headers.get("Range"))
                self.close_connection = True
                if isinstance(how, int):
                    return self.answer(how, b"trouble", {"Retry-After": "0"})
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return self.connection.close()
                if not path.is_file():
                    return self.answer(404, b"no such file", {})
                data = path.read_bytes()
                headers = (
                    {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
                    if server.linked_etag
                    else {}
                )
                self.send(data, how, headers)

            def send(self, data: bytes, how: str | None, headers: dict) -> None:
                status, body = 200, data
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if wanted and how != "no-range":
                    start = int(wanted[1])
                    if start >= len(data):
                        return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                    shift = 5 if how == "wrong-range" else 0
                    status, body = 206, data[start + shift :] + b"x" * shift
                    headers["Content-Range"] = f"bytes {start + shift}-{len(data) - 1}/{len(data)}"
                if how == "corrupt":
                    body = body[: len(body) // 2] + b"\xff" * 200 + body[len(body) // 2 + 200 :]
                if how in ("truncate", "stall", "chunked"):
                    body = body[: len(body) // 2]
                full = len(data) if status == 200 else len(data) - int(wanted[1])
                self.answer(status, body, headers, length=None if how == "chunked" else full)
                if how == "stall":
                    self.wfile.flush()
                    server.release.wait(20)

            def answer(
                self, status: int, body: bytes, headers: dict, length: int | None = -1
            ) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if length is not None:
                    self.send_header("Content-Length", str(len(body) if length == -1 else length))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)

        return Handler
