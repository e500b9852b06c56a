"""`python -m scripts.chat_sft` is `nanochat chat-sft`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["chat-sft", *sys.argv[1:]])
