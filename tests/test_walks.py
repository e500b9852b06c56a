"""The walks of docs/explanation/architecture.md: a batch and a request really enter
those files."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat"


def walk(title: str) -> list[str]:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    section = page.split(f"## {title}")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`", section, re.MULTILINE)


@contextmanager
def entered() -> Iterator[Callable[[], list[str]]]:
    """The files of the package whose functions were called, each at its first call."""
    seen: dict[str, None] = {}

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            seen.setdefault(frame.f_code.co_filename)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield lambda: [
            Path(name).relative_to(PACKAGE).as_posix()
            for name in list(seen)
            if name.startswith(str(PACKAGE)) and not name.endswith("__init__.py")
        ]
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def helper(path: str) -> Any:
    """A module of helpers beside other tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_batch_enters_the_files_of_its_walk(base_dir, monkeypatch):
    from nanochat.runtime.world import init_world
    from nanochat.train import stages

    tiny_runs = helper("train/tiny_runs.py")
    tiny_runs.make_base(base_dir)
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    with entered() as files:
        stages.base(tiny_runs.base_config(num_iterations=1), init_world("cpu"))
    assert set(walk("A batch")) <= set(files())


def test_a_request_enters_the_files_of_its_walk():
    from nanochat.tokenizer import Tokenizer

    serving = helper("serve/conftest.py")
    with entered() as files:
        running = serving.start_server(Tokenizer.byte_level(), native=False)
        try:
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            reply = running.http.post(f"{running.url}/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
        finally:
            running.stop()
    assert set(walk("A request")) <= set(files())


def test_the_walks_are_short():
    assert 5 < len(walk("A batch")) <= 12 and 5 < len(walk("A request")) <= 10
