"""Starting the server: the port comes before the model."""

from __future__ import annotations

import socket

import pytest
import torch

from nanochat.runtime.world import World
from nanochat.serve.chat_web import chat_web
from nanochat.serve.http.server import listen
from nanochat.serve.web_config import ChatWebConfig

WORLD = World(0, 0, 1, torch.device("cpu"))


def test_a_port_is_taken_as_soon_as_it_is_asked_for():
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port={port}: cannot listen there .*another one"):
            listen("127.0.0.1", port)
        with pytest.raises(ValueError, match="choose another one with -p"):
            listen("0.0.0.0", port)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass  # a client that comes while the model loads waits, and is not turned away
    listen("127.0.0.1", port).close()  # free again at once


def test_the_port_is_asked_for_before_the_model(base_dir):
    """There is no checkpoint either: what is said is that the port is taken."""
    with listen("127.0.0.1", 0) as bound:
        config = ChatWebConfig(port=bound.getsockname()[1])
        with pytest.raises(ValueError, match="cannot listen there"):
            chat_web(config, WORLD)
    with pytest.raises(ValueError, match="checkpoint"):
        chat_web(ChatWebConfig(port=0), WORLD)
