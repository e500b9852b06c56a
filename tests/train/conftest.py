"""Fixtures of the training tests, over the base directory of `tiny_runs`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked_runs import fork_server, starter
from tiny_runs import make_base

from nanochat.runtime.world import World


@pytest.fixture
def data(base_dir, monkeypatch) -> Path:
    monkeypatch.setenv("NANOCHAT_DTYPE", "float32")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    make_base(base_dir)
    yield base_dir
    torch.set_num_threads(threads)


@pytest.fixture
def single() -> World:
    return World(0, 0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def forks():
    return fork_server()


@pytest.fixture
def train(forks, base_dir, tmp_path):
    """train(ranks, fault, **config changes) -> Result; several calls share the base directory."""
    make_base(base_dir)
    return starter(forks, base_dir, tmp_path)
