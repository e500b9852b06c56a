"""`python -m scripts.tok_eval` is `nanochat tok-eval`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["tok-eval", *sys.argv[1:]])
