"""`python -m scripts.tok_train` is `nanochat tok-train`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["tok-train", *sys.argv[1:]])
