"""Finding task data: local folders, the hub's cache, and a hub that fails, cuts off and lies."""

from __future__ import annotations

import functools
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataset.fetcher import Fetcher
from nanochat.tasks import task_data
from nanochat.tasks.arc import ARC
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.task_data import DataNotFound, fetch_task_data, load_rows

ROWS = [
    {"question": f"{i} + 1?", "answer": f"<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(5)
]


def parquet(rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(task_data, "Fetcher", functools.partial(Fetcher, wait_s=0.001))


def test_absent_says_where_and_how(base_dir, tmp_path):
    with pytest.raises(DataNotFound) as caught:
        GSM8K("train")
    message = str(caught.value)
    assert "GSM8K train not found" in message and str(base_dir / "task_data" / "gsm8k") in message
    assert (
        "datasets--openai--gsm8k" in message
        and "bash scripts/download_after_basetraining.sh" in message
    )


def test_data_dir_wins_over_base_dir(base_dir, tmp_path, monkeypatch):
    write(base_dir / "task_data" / "gsm8k" / "train.jsonl", jsonl(ROWS))
    assert len(GSM8K("train")) == 5
    write(tmp_path / "mine" / "gsm8k" / "train.jsonl", jsonl(ROWS[:2]) + "\n")
    monkeypatch.setenv("NANOCHAT_DATA_DIR", str(tmp_path / "mine"))
    assert len(GSM8K("train")) == 2


def test_bad_line_is_named(base_dir):
    path = write(base_dir / "task_data" / "gsm8k" / "train.jsonl", jsonl(ROWS[:1]) + "{nope\n")
    rows = load_rows("gsm8k", "train")
    assert rows[0]["question"] == "0 + 1?"
    with pytest.raises(ValueError, match=f"{path}:2: not JSON"):
        rows[1]


def test_hub_cache_prefers_the_snapshot_of_main(tmp_path):
    cached = tmp_path / "hf" / "hub" / "datasets--openai--gsm8k"
    write(cached / "refs" / "main", "bbb")
    write(cached / "snapshots" / "aaa" / "main" / "train-00000-of-00001.parquet", parquet(ROWS[:1]))
    write(cached / "snapshots" / "bbb" / "main" / "train-00000-of-00002.parquet", parquet(ROWS[:3]))
    assert len(GSM8K("train")) == 1  # the newer one lacks a shard
    write(cached / "snapshots" / "bbb" / "main" / "train-00001-of-00002.parquet", parquet(ROWS[3:]))
    assert [row["question"] for row in load_rows("gsm8k", "train")] == [
        row["question"] for row in ROWS
    ]


def test_rows_of_the_hub_are_the_local_ones(base_dir, tmp_path):
    """ARC and MMLU's auxiliary set are laid out differently on the hub."""
    cached = tmp_path / "hf" / "hub"
    hub_arc = {
        "question": "Why?",
        "choices": {"text": ["a", "b"], "label": ["A", "B"]},
        "answerKey": "B",
    }
    write(
        cached / "datasets--allenai--ai2_arc/snapshots/x/ARC-Easy/test-00000-of-00001.parquet",
        parquet([hub_arc]),
    )
    local = {
        "question": {
            "stem": "Why?",
            "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}],
        },
        "answerKey": "B",
    }
    from_hub = ARC("ARC-Easy", "test")[0]
    write(base_dir / "task_data/arc/ARC-Easy/test.jsonl", jsonl([local]))
    assert ARC("ARC-Easy", "test")[0] == from_hub
    row = {"question": "Q", "choices": ["1", "2", "3", "4"], "answer": 2, "subject": ""}
    write(
        cached / "datasets--cais--mmlu/snapshots/x/auxiliary_train/train-00000-of-00001.parquet",
        parquet([{"train": row}]),
    )
    write(base_dir / "task_data/mmlu/test.jsonl", jsonl([row]))
    assert MMLU("auxiliary_train")[0] == MMLU("test")[0]
    assert MMLU("test")[0]["messages"][1]["content"] == "C"


@pytest.mark.parametrize(
    "name, split, said",
    [
        ("gsm9k", "train", "'gsm9k' is unknown; did you mean gsm8k?"),
        ("gsm8k", "dev", "GSM8K has no 'dev'; use one of train, test"),
    ],
)
def test_unknown_names(name, split, said):
    with pytest.raises(ValueError, match=said):
        load_rows(name, split)


class Hub:
    """A local hub that serves GSM8K in two files. `trouble` maps a path's ending to what goes
    wrong, once each.
    """

    def __init__(self) -> None:
        self.files = {"0.parquet": parquet(ROWS[:3]), "1.parquet": parquet(ROWS[3:])}
        self.trouble: dict[str, list[str]] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request) -> None:
        self.asked.append(request.path)
        trouble = next(
            (v.pop(0) for k, v in self.trouble.items() if request.path.endswith(k) and v), ""
        )
        prefix = "/api/datasets/openai/gsm8k/parquet/main/"
        name = request.path.rpartition("/")[2]
        if not request.path.startswith(prefix) or trouble == "404":
            request.send_error(404)
        elif trouble == "503":
            request.send_error(503)
        else:
            body = self.files.get(name)
            if body is None:  # the listing names the public host, as the real one does for a mirror
                urls = [f"https://hub.invalid{request.path}/{file}" for file in self.files]
                body = json.dumps(urls).encode()
            sent = {"cut": body[: len(body) // 2], "garbage": b"x" * len(body)}.get(trouble, body)
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(sent)


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    yield hub
    hub.server.shutdown()


def test_download_survives_a_bad_hub_and_happens_once(hub, base_dir):
    hub.trouble = {"/train": ["503"], "0.parquet": ["cut", "503"], "1.parquet": ["garbage"]}
    task = GSM8K("train")
    assert [row["messages"][0]["content"] for row in task] == [row["question"] for row in ROWS]
    folder = base_dir / "task_data" / "gsm8k" / "main"
    assert sorted(p.name for p in folder.rglob("*.parquet")) == ["0000.parquet", "0001.parquet"]
    assert [path.name for path in folder.iterdir()] == ["train"]  # no part of it, no lock
    asked = len(hub.asked)
    assert len(GSM8K("train")) == 5 and len(hub.asked) == asked


def test_failed_download_leaves_nothing_and_says_why(hub, base_dir):
    hub.trouble = {"1.parquet": ["cut"] * 10}
    with pytest.raises(DataNotFound, match="no download: .*1.parquet: the connection ended"):
        GSM8K("train")
    assert not list((base_dir / "task_data").rglob("train/*"))
    hub.trouble, hub.asked[:] = {}, []
    assert len(GSM8K("train")) == 5
    assert not any(
        path.endswith("0.parquet") for path in hub.asked
    )  # the whole file of the first try was kept


def test_download_task_data_goes_on_and_lists_failures(hub):
    hub.trouble = {"/test": ["404"] * 9}
    with pytest.raises(ValueError, match="GSM8K test: .*/test: not found \\(404\\)"):
        fetch_task_data(["gsm8k"])
    hub.trouble = {}
    assert set(fetch_task_data(["gsm8k"])) == {"gsm8k/train", "gsm8k/test"}
    with pytest.raises(ValueError, match="'nope' is unknown"):
        fetch_task_data(["nope"])


def test_unreachable_hub_is_given_up_at_once(hub, monkeypatch):
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(DataNotFound, match="no download"):
        GSM8K("test")
