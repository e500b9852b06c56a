"""`python -m scripts.mid_train` is `nanochat mid-train`."""

from __future__ import annotations

import sys

from nanochat.cli import main

if __name__ == "__main__":
    main(["mid-train", *sys.argv[1:]])
