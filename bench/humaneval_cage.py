"""HumanEval in the cage: every reference solution must pass, every deliberately wrong one must
fail, in good time.

python bench/humaneval_cage.py path/to/HumanEval.jsonl [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path

from nanochat.tasks.sandbox import choose_cage, run_many


def program(row: dict, body: str) -> str:
    """The problem's header, a body for it, the problem's tests and the call of them."""
    return f"{row['prompt']}{body}\n{row['test']}\ncheck({row['entry_point']})\n"


def main() -> None:
    """Print one line for each of the two lists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    lines = args.file.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    print(f"cage {choose_cage()}, {args.workers} workers, {len(rows)} problems")
    for name, bodies in (
        ("reference solutions", [row["canonical_solution"] for row in rows]),
        ("wrong on purpose", ["    return None\n"] * len(rows)),
    ):
        started = time.perf_counter()
        codes = [program(row, body) for row, body in zip(rows, bodies, strict=True)]
        results = run_many(codes, workers=args.workers, timeout_s=20.0)
        wall_s = time.perf_counter() - started
        reasons = dict(Counter(result.reason for result in results))
        print(
            f"{name}: {sum(r.ok for r in results)} of {len(rows)} pass in {wall_s:.1f} s; ended "
            f"as {reasons}"
        )


if __name__ == "__main__":
    main()
