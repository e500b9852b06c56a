"""Property-based requests made from the server's own OpenAPI document; none may be a server error.

    pip install schemathesis
    python -m bench.schemathesis_api --examples 100

Starts the load benchmark's server (a tiny random model) and runs the schemathesis command line
against it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--examples", type=int, default=100, help="requests for each operation and phase"
    )
    parser.add_argument("--schemathesis", help="the command, if it is not on the PATH")
    args = parser.parse_args()
    beside = Path(sys.executable).with_name("schemathesis")
    command = (
        args.schemathesis
        or shutil.which("schemathesis")
        or (str(beside) if beside.exists() else None)
    )
    if command is None:
        print("error: schemathesis is not installed; pip install schemathesis", file=sys.stderr)
        return 2
    serve = [sys.executable, "-m", "bench.serve_load", "--serve"]
    process = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(next(line for line in process.stdout if line.strip().isdigit()))
        words = [
            command,
            "run",
            f"http://127.0.0.1:{port}/openapi.json",
            "--checks",
            "not_a_server_error",
        ]
        return subprocess.run([*words, "--max-examples", str(args.examples)]).returncode
    finally:
        process.terminate()
        process.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
