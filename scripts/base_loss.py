"""`python -m scripts.base_loss` is `nanochat base-loss`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["base-loss", *sys.argv[1:]])
