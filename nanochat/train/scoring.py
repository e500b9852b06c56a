"""What a model thinks of tokens that were drawn: their log-probabilities and the entropy where they
were drawn.

Shape legend: B rows, T tokens, N scored positions, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.dataloader.loader import Batch
from nanochat.gpt import GPT

CHUNK_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}  # fp32 logits alive at once
# Rows are padded to a multiple of this: few different shapes. Libraries keep memory for each shape
# they have met.
WIDTHS = 16


@torch.no_grad()
def score(model: GPT, batch: Batch, with_entropy: bool = False) -> tuple[Tensor, Tensor | None]:
    """log p (N) of the targets with a weight, row by row, and the entropy (N) of the distributions;
    nats, fp32.
    """
    hidden = model.hidden(batch.input_ids)[batch.weights != 0]
    targets = batch.targets[batch.weights != 0]
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    n = max(1, budget // (4 * model.config.vocab_size))
    logprobs, entropies = [], []
    for rows, wanted in zip(hidden.split(n), targets.split(n), strict=True):
        everything = model.head(rows).log_softmax(dim=-1)
        logprobs.append(everything.gather(1, wanted[:, None])[:, 0])
        if with_entropy:
            entropies.append(-(everything.exp() * everything).sum(dim=-1))
    empty = hidden.new_zeros(0, dtype=torch.float32)
    return torch.cat([empty, *logprobs]), torch.cat([empty, *entropies]) if with_entropy else None


def in_precision(model: GPT, dtype: torch.dtype) -> GPT:
    """A frozen copy of `model` with its weights in `dtype`. Collective where the model is in pieces
    over the ranks.
    """
    with torch.device("meta"):
        copy = GPT(model.config)
    state = {}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
            state[name] = whole.detach().to(dtype, copy=True)
    copy.load_state_dict(state, assign=True)
    copy.compute_dtype = model.compute_dtype
    return copy.requires_grad_(False).eval()


@torch.no_grad()
def follow(copy: GPT, model: GPT) -> None:
    """Bring the weights of a copy up to date."""
    for own, now in zip(copy.parameters(), model.parameters(), strict=True):
        own.copy_(now)


def micro_batches(
    rows: Sequence[tuple[Sequence[int], Sequence[float]]], budget_tokens: int, padding: int
) -> list[tuple[Batch, list[int]]]:
    """Rows of (token ids, weight of each) as right-padded batches of about equal lengths, with the
    rows' numbers.

    A batch holds at most `budget_tokens` tokens, padding included, or a single row. A token's
    weight is that of predicting it; the first token is predicted by nobody.
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
