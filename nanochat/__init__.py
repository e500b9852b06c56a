"""nanochat: from raw text to a chat model that people use, in one readable code base."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 10):  # noqa: UP036  # an old `python` comes this far, and no further
    raise SystemExit(
        "error: this is Python {}.{} ({}), and nanochat needs 3.10 to 3.13; use .venv/bin/python, "
        "which `bash scripts/setup_environment.sh` makes, or load a newer Python module".format(
            *sys.version_info[:2], sys.executable
        )
    )
