"""`python -m scripts.chat_eval` is `nanochat chat-eval`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["chat-eval", *sys.argv[1:]])
