"""Make identity conversations for SFT: `python dev/gen_synthetic_data.py -n 1000 --persona
my.yaml`.

Without an endpoint they come from templates, offline. With one, a language model writes them:

    python dev/gen_synthetic_data.py -n 1000 --base-url http://127.0.0.1:8000/v1 --model NAME

Run it again after an interruption and it goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # works from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from nanochat.config import parse
    from nanochat.dataset.synthetic import SyntheticConfig, generate
    from nanochat.runtime.entry import run_as_command

    run_as_command(lambda: generate(parse(SyntheticConfig, prog="gen_synthetic_data.py")))
