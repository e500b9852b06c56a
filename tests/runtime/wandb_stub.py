"""A server that speaks as much of W&B's protocol as a run needs, and keeps what it is sent; and one
that never answers.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN = {
    "id": "R",
    "name": "abc",
    "displayName": "study",
    "config": "{}",
    "sweepName": None,
    "historyLineCount": 0,
    "project": {"id": "P", "name": "nanochat", "entity": {"id": "E", "name": "me"}},
}
VIEWER = {"id": "U", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
ARTIFACT = {"id": "A", "digest": "d", "state": "COMMITTED", "artifactSequence": {"id": "S"}}
ANSWERS = {
    "upsertBucket": {"upsertBucket": {"bucket": RUN, "inserted": True}},
    "createArtifact": {"createArtifact": {"artifact": ARTIFACT}},
    "createRunFiles": {"createRunFiles": {"runID": "abc", "uploadHeaders": [], "files": []}},
    "viewer": {"viewer": VIEWER},
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def reply(self, data):
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply({})

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def do_PUT(self):
        self.body()
        self.reply({})

    def do_POST(self):
        try:
            asked = json.loads(self.body())
        except ValueError:
            return self.reply({})
        if self.path.endswith("file_stream"):
            for name, part in (asked.get("files") or {}).items():
                self.server.received.setdefault(name, []).extend(map(json.loads, part["content"]))
            return self.reply({})
        query = asked.get("query", "")
        if "upsertBucket" in query:
            self.server.upserts.append(asked["variables"])
        features = {"serverInfo": {"features": [], "cliVersionInfo": {"max_cli_version": "9"}}}
        found = next((data for word, data in ANSWERS.items() if word in query), {})
        return self.reply({"data": {**features, "model": {"bucket": None}, **found}})


@contextmanager
def wandb_server():
    """-> (address, server): `received` holds rows by file name, `upserts` what runs were made."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.upserts = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent_server():
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
