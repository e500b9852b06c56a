"""What a task says about its answers besides right and wrong: the parts it has, how answers ended,
and wrong ones to read, the expected query and its result beside the answer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.report.blocks import Block, Details, Heading, SampleBlock, Table, Text
from nanochat.report.quantities import number


def task_parts(name: str, entry: Mapping[str, Any]) -> list[Block]:
    """The blocks of a task's entry; nothing where it has no parts."""
    parts = entry.get("parts") or {}
    if not parts:
        return []
    blocks: list[Block] = [Heading(3, f"{name} in parts")]
    for kind, of in parts.items():
        rows = [
            [part, f"{s['score']:.4f}", f"{s['low']:.3f} to {s['high']:.3f}", number(s["n"])]
            for part, s in of.items()
        ]
        blocks.append(Table([kind, "Score", "95% Wilson interval", "Questions"], rows))
    counts = entry.get("counts") or {}
    if counts:
        told = ", ".join(f"{number(n)} {what}" for what, n in counts.items())
        blocks.append(Text(f"How the answers ended: {told}."))
    cases = entry.get("cases") or []
    if cases:
        blocks.append(Details(f"Wrong answers of {name}", [_case(case) for case in cases]))
    return blocks


def _case(case: Mapping[str, Any]) -> Block:
    """A wrong answer: what was asked, both queries, and both results where there are two."""
    asked = [str(case["question"]), f"expected: {case['expected']}"]
    answered = [str(case["answer"])]
    if "expected_rows" in case:
        expected, found = case["n_rows"]
        asked.append(_rows("its result", case["expected_rows"], expected))
        answered.append(_rows("its result", case["answer_rows"], found))
    return SampleBlock("\n".join(asked), "\n".join(answered), str(case["reason"]))


def _rows(title: str, rows: Sequence[Sequence[str]], total: int) -> str:
    """The first rows of a result as text, and how many there are."""
    lines = [" | ".join(map(str, row)) for row in rows]
    more = [f"... of {total} rows"] if total > len(rows) else []
    return "\n".join([f"{title}:", *(lines or ["(no rows)"]), *more])
