"""Answers of the model as blocks: short ones in a table, long ones in full; with rewards the best
and the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.report.blocks import Block, Details, Heading, SampleBlock, Table
from nanochat.report.quantities import number

SHOWN, FOLDED, ENDS = 4, 24, 3
# A prompt or an answer that a table's cell holds without becoming hard to read.
SHORT_CHARACTERS = 260
SHORT_SHOWN = 12


def samples(record: Mapping[str, Any]) -> list[Block]:
    """What the record's samples say, or nothing where it has none."""
    found = record.get("samples") or []
    if not found:
        return []
    rewarded = [sample for sample in found if "reward" in sample]
    if len(rewarded) > 2 * ENDS:
        ordered = sorted(rewarded, key=lambda s: s["reward"], reverse=True)
        best, worst = ordered[:ENDS], ordered[: -ENDS - 1 : -1]
        return [
            Heading(3, "Best samples"),
            *_blocks(best),
            Heading(3, "Worst samples"),
            *_blocks(worst),
        ]
    shown = SHORT_SHOWN if _short(found) else SHOWN
    blocks = [Heading(3, "Samples"), *_blocks(found[:shown])]
    rest = found[shown : shown + FOLDED]
    name = f"{len(rest)} more samples" if len(rest) > 1 else "One more sample"
    return [*blocks, Details(name, _blocks(rest))] if rest else blocks


def _short(entries: Sequence[Mapping[str, Any]]) -> bool:
    texts = [str(entry[key]).strip() for entry in entries for key in ("prompt", "completion")]
    return all("\n" not in text and len(text) <= SHORT_CHARACTERS for text in texts)


def _blocks(entries: Sequence[Mapping[str, Any]]) -> list[Block]:
    """A table where everything fits on a line, else one block each."""
    if not _short(entries):
        return [SampleBlock(str(e["prompt"]), str(e["completion"]), _note(e)) for e in entries]
    notes = [_note(entry) for entry in entries]
    rows = [
        [str(e["prompt"]), str(e["completion"])] + ([n] if any(notes) else [])
        for e, n in zip(entries, notes, strict=True)
    ]
    return [Table(["Prompt", "Answer", "Verdict"][: len(rows[0])], rows, numeric=False)]


def _note(entry: Mapping[str, Any]) -> str:
    if "reward" in entry:
        return f"reward {number(entry['reward'])}"
    return {True: "right", False: "wrong"}.get(entry.get("correct", ""), "")
