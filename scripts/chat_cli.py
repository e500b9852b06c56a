"""`python -m scripts.chat_cli` is `nanochat chat-cli`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["chat-cli", *sys.argv[1:]])
