"""`python -m scripts.base_train` is `nanochat base-train`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["base-train", *sys.argv[1:]])
