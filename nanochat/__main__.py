"""`python -m nanochat` is `nanochat`."""

from __future__ import annotations

from nanochat.cli import main

main()
