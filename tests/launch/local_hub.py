"""A server that speaks as much of the hub's protocol as downloads need: listings of a data set's
parquet files, the files themselves, and the shards of a text set.
"""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.tasks.catalogue import DATA_SETS

CHOICES = ["red", "blue", "green", "grey"]
QUESTION = {"question": "Which colour has the sky?", "subject": "colours", "choices": CHOICES}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def row_of(name: str, number: int) -> dict[str, Any]:
    """A row in the columns that the hub has for a data set, each number another one."""
    if name == "gsm8k":
        answer = f"{number}+1=<<{number}+1={number + 1}>>{number + 1}\n#### {number + 1}"
        return {"question": f"What is {number} + 1?", "answer": answer}
    if name == "humaneval":
        text = {"prompt": "def one():\n", "canonical_solution": "    return 1\n"}
        text["test"] = "def check(candidate):\n    assert candidate() == 1\n"
        return {"task_id": f"HumanEval/{number}", **text, "entry_point": "one"}
    if name.startswith("mmlu"):
        row = {**QUESTION, "question": f"{QUESTION['question']} {number}", "answer": 1}
        return {"train": row} if name == "mmlu-auxiliary" else row
    if name.startswith("arc"):
        choices = {"text": CHOICES, "label": list("ABCD")}
        question = f"{QUESTION['question']} {number}"
        return {"id": str(number), "question": question, "choices": choices, "answerKey": "B"}
    turns = [("user", f"Hello, {number}!"), ("assistant", f"Good morning, {number}.")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


class LocalHub:
    """Every data set of the catalogue with `n_rows` rows a split, in two files; any shard has
    `text`.
    """

    def __init__(self, n_rows: int, text: list[str]) -> None:
        self.shard = parquet([{"text": document} for document in text])
        self.files: dict[str, bytes] = {}
        for name, data_set in DATA_SETS.items():
            for split in data_set.splits.values():
                place = f"/api/datasets/{data_set.hub}/parquet/{data_set.config}/{split}"
                rows = [row_of(name, number) for number in range(n_rows)]
                self.files[f"{place}/0.parquet"] = parquet(rows[: n_rows // 2])
                self.files[f"{place}/1.parquet"] = parquet(rows[n_rows // 2 :])
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = hub.answer(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> bytes | None:
        """A file, or the listing of a split, which names the public host."""
        if "/resolve/" in path:
            return self.shard
        if path in self.files:
            return self.files[path]
        found = [name for name in self.files if name.startswith(f"{path}/")]
        return json.dumps([f"https://hub.invalid{name}" for name in found]).encode() or None
