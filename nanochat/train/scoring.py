"""Answers that were drawn as batches, and what a model thinks of their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT
from nanochat.logprobs import TargetScores, target_logprobs

# Rows are padded to a multiple of this: few different shapes. Libraries keep memory for each shape
# they have met.
WIDTHS = 16


@torch.no_grad()
def score(model: GPT, batch: Batch) -> TargetScores:
    """Of the batch's targets with a weight, row by row."""
    scored = batch.weights != 0
    hidden = model.hidden(batch.input_ids)[scored]
    return target_logprobs(model, hidden, batch.targets[scored], with_entropy=True)


def micro_batches(
    rows: Sequence[tuple[Sequence[int], Sequence[float]]], budget_tokens: int, padding: int
) -> list[tuple[Batch, list[int]]]:
    """Rows of (token ids, weight of each) as right-padded batches of about equal lengths, with the
    rows' numbers.

    A batch holds at most `budget_tokens` tokens, padding included, or a single row. A token's
    weight is that of predicting it; the first token is never a target.
    """
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number][0]), number))
    batches: list[tuple[Batch, list[int]]] = []
    while order:
        width = -(-(len(rows[order[0]][0]) - 1) // WIDTHS) * WIDTHS
        n = max(1, min(len(order), budget_tokens // max(1, width)))
        batches.append((_padded([rows[number] for number in order[:n]], width, padding), order[:n]))
        order = order[n:]
    return batches


def _padded(
    rows: Sequence[tuple[Sequence[int], Sequence[float]]], width: int, padding: int
) -> Batch:
    ids = torch.full((len(rows), width + 1), padding, dtype=torch.int64)
    weights = torch.zeros(len(rows), width + 1, dtype=torch.float32)
    for number, (tokens, own) in enumerate(rows):
        assert len(tokens) == len(own), "each token has a weight"
        ids[number, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        weights[number, : len(own)] = torch.tensor(own, dtype=torch.float32)
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous())
