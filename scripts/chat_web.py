"""`python -m scripts.chat_web` is `nanochat chat-web`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["chat-web", *sys.argv[1:]])
