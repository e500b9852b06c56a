"""A hub on this machine: repositories that can be listed, downloaded, and uploaded to by the large
file protocol; told to, it fails, breaks off or lies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE_BYTES = 10_000  # files from here on go by the large file protocol


class FakeHub:
    """`repos`: name -> path -> bytes. `blobs`: uploaded large files by SHA-256. `fail`: called with
    method and path before each answer; True breaks the connection. `lie`: paths served with other
    bytes.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.blobs: dict[str, bytes] = {}
        self.commits = 0
        self.requests: list[str] = []
        self.fail = lambda method, path: False
        self.lie: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def listing(self, repo: str) -> dict[str, Any]:
        siblings = []
        for name, data in sorted(self.repos[repo].items()):
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
            if len(data) >= LARGE_BYTES:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        private = self.private.get(repo, False)
        return {"id": repo, "sha": "c0ffee", "siblings": siblings, "private": private, "tags": []}

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.repos[repo])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
        self.repos[repo] = files
        self.commits += 1

    def _handler(hub):  # noqa: N805 - the handler's own self is another object
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args) -> None:
                pass

            def answer(self, content: Any, status: int = 200) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def handle_any(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                size = int(self.headers.get("Content-Length") or 0)
                try:
                    body = self.rfile.read(size)
                except OSError:
                    body = b""
                if len(body) < size or hub.fail(self.command, self.path):
                    self.close_connection = True
                    self.connection.close()
                    return
                try:
                    self.route(self.path.partition("?")[0], body)
                except OSError:  # the client has gone
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815 - names of the library

            def route(self, path: str, body: bytes) -> None:
                if path == "/api/repos/create":
                    return self.create(json.loads(body))
                if path == "/api/validate-yaml":
                    return self.answer({"errors": [], "warnings": []})
                if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                    known = match[1] in hub.repos
                    return self.answer(
                        hub.listing(match[1]) if known else {}, 200 if known else 404
                    )
                if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/\w+", path):
                    files = json.loads(body)["files"]
                    return self.answer({"files": [preupload(entry) for entry in files]})
                if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                    objects = json.loads(body)["objects"]
                    batch = [self.batch(entry) for entry in objects]
                    return self.answer({"transfer": "basic", "objects": batch})
                if match := re.fullmatch(r"/upload/(\w+)", path):
                    if hashlib.sha256(body).hexdigest() != match[1]:
                        return self.answer({}, 400)
                    hub.blobs[match[1]] = body
                    return self.answer(b"")
                if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/\w+", path):
                    lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                    hub.commit(match[1], lines)
                    url = f"{hub.url}/{match[1]}/commit/c0ffee"
                    return self.answer({"commitUrl": url, "commitOid": "c0ffee"})
                if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                    return self.file(hub.repos.get(match[1], {}), match[2])
                return self.answer({"error": "not found"}, 404)

            def create(self, asked: dict[str, Any]) -> None:
                repo = f"{asked['organization']}/{asked['name']}"
                if repo in hub.repos:
                    return self.answer({"url": f"{hub.url}/{repo}", "error": "exists"}, 409)
                hub.repos[repo] = {}
                hub.private[repo] = asked.get("visibility") == "private" or bool(
                    asked.get("private")
                )
                return self.answer({"url": f"{hub.url}/{repo}", "id": repo})

            def batch(self, entry: dict[str, Any]) -> dict[str, Any]:
                if entry["oid"] in hub.blobs:
                    return entry
                upload = {"href": f"{hub.url}/upload/{entry['oid']}", "header": {}}
                return {**entry, "actions": {"upload": upload}}

            def file(self, files: dict[str, bytes], name: str) -> None:
                if name not in files:
                    return self.answer({}, 404)
                data = files[name]
                if name in hub.lie:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                return self.answer(data)

        return Handler


def preupload(entry: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if entry["size"] >= LARGE_BYTES else "regular"
    return {"path": entry["path"], "uploadMode": mode, "shouldIgnore": False}
