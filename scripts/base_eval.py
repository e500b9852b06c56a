"""`python -m scripts.base_eval` is `nanochat base-eval`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["base-eval", *sys.argv[1:]])
