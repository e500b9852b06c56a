"""`python -m scripts.chat_rl` is `nanochat chat-rl`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["chat-rl", *sys.argv[1:]])
