"""Log-likelihoods of given continuations: the machine under CORE, letters and the harness.

Rows that ask about the same prompt (the choices of one question) are forwarded once, as a tree: the
shared prompt, then every continuation as a branch that sees the prompt and itself but not its
siblings. Trees are batched by length, and the head, the widest matrix of a small model, runs only
where a target is predicted.

Shape legend: B trees, T nodes (padded), D model width, N scored tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from nanochat.attention import attend
from nanochat.engine.finite import check_finite
from nanochat.gpt import GPT
from nanochat.logprobs import target_logprobs

# A tree pays a masked attention kernel for the nodes it saves; below this share of saved nodes rows
# go separately.
MIN_SAVED_SHARE = 0.2


@dataclass(frozen=True)
class ScoredRow:
    """Score `tokens[start:end]` given everything before it. 1 <= start <= end <= len(tokens)."""

    tokens: Sequence[int]
    start: int
    end: int


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood in nats over `n_tokens` tokens, and whether each was the model's
    first choice.
    """

    nll: float
    n_tokens: int
    greedy: bool

    @property
    def mean_nll(self) -> float:
        return self.nll / self.n_tokens if self.n_tokens else float("nan")


@dataclass(kw_only=True)
class _Tree:
    """Nodes of one forward row. Branch 0 is the shared prefix; a target is (row number, node, token
    it predicts).
    """

    tokens: list[int]
    positions: list[int]
    parents: list[int]
    branches: list[int]
    targets: list[tuple[int, int, int]] = field(default_factory=list)


def default_max_tokens(device: torch.device) -> int:
    """Nodes forwarded at once: enough to fill the device, little enough that activations stay small
    beside weights.
    """
    return 65536 if device.type == "cuda" else 8192


def crop_left(row: ScoredRow, context: int) -> ScoredRow:
    """The last `context` tokens of a row. Scored tokens that lose all context before them are no
    longer scored.
    """
    cut = len(row.tokens) - context
    if cut <= 0:
        return row
    return ScoredRow(row.tokens[cut:], max(1, row.start - cut), max(1, row.end - cut))


@torch.inference_mode()
def score_groups(
    model: GPT,
    groups: Sequence[Sequence[ScoredRow]],
    max_tokens: int | None = None,
    share_prefixes: bool = True,
    on_done: Callable[[int], None] | None = None,
    context: int | None = None,
) -> list[list[Score]]:
    """Score rows in groups that are likely to share a prefix -> scores in the same arrangement.

    Rows longer than `context` tokens (default: the model's) are cropped from the left; as the last
    token is never forwarded, one more than the model's context is possible. Memory is bounded by
    `max_tokens` nodes a batch. `on_done` is told the number of rows finished after each batch.
    `share_prefixes=False` is the slow twin for tests. NonFiniteLogits when the model computes no
    numbers.
    """
    context = context or model.config.sequence_len
    device = model.get_device()
    rows = [crop_left(row, context) for group in groups for row in group]
    numbers = iter(range(len(rows)))
    trees: list[_Tree] = []
    for group in groups:
        own = list(islice(numbers, len(group)))
        trees += _plant(rows, own) if share_prefixes else [_grow(rows, [number]) for number in own]
    nlls = [0.0] * len(rows)
    greedy = [True] * len(rows)
    for batch in _batches(trees, max_tokens or default_max_tokens(device)):
        for number, nll, first_choice in _score_batch(model, batch, device):
            nlls[number] += nll
            greedy[number] &= first_choice
        if on_done is not None:
            on_done(len({number for tree in batch for number, _, _ in tree.targets}))
    scores = (
        Score(nll, row.end - row.start, first)
        for nll, row, first in zip(nlls, rows, greedy, strict=True)
    )
    return [list(islice(scores, len(group))) for group in groups]


def _plant(rows: Sequence[ScoredRow], numbers: Sequence[int]) -> list[_Tree]:
    """Trees over one group. Rows cropped by different amounts begin with different tokens and
    cannot share.
    """
    by_opening: dict[tuple[int, ...], list[int]] = {}
    for number in numbers:
        by_opening.setdefault(tuple(rows[number].tokens[:4]), []).append(number)
    trees = []
    for alike in by_opening.values():
        sequences = [_forwarded(rows[number]) for number in alike]
        saved = common_prefix(sequences) * (len(alike) - 1)
        if saved < MIN_SAVED_SHARE * sum(map(len, sequences)):
            trees += [_grow(rows, [number]) for number in alike]
        else:
            trees.append(_grow(rows, alike))
    return trees


def _forwarded(row: ScoredRow) -> Sequence[int]:
    """The last token predicts nothing, so it is never forwarded."""
    return row.tokens[: max(1, row.end - 1)]


def _grow(rows: Sequence[ScoredRow], numbers: Sequence[int]) -> _Tree:
    """One tree over rows that begin alike: what they share, then a branch for the rest of each."""
    sequences = [_forwarded(rows[number]) for number in numbers]
    shared = common_prefix(sequences)
    tree = _Tree(
        tokens=list(sequences[0][:shared]),
        positions=list(range(shared)),
        parents=list(range(-1, shared - 1)),
        branches=[0] * shared,
    )
    for branch, (number, sequence) in enumerate(zip(numbers, sequences, strict=True), start=1):
        row, first, own = rows[number], len(tree.tokens), sequence[shared:]
        tree.tokens += own
        tree.positions += range(shared, len(sequence))
        tree.parents += [shared - 1, *range(first, first + len(own) - 1)][: len(own)]
        tree.branches += [branch] * len(own)
        for t in range(row.start, row.end):
            node = t - 1 if t - 1 < shared else t - 1 + first - shared
            tree.targets.append((number, node, row.tokens[t]))
    return tree


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all sequences have in common."""
    shortest = min(map(len, sequences))
    first = sequences[0]
    for i in range(shortest):
        if any(sequence[i] != first[i] for sequence in sequences):
            return i
    return shortest


def _batches(trees: list[_Tree], max_tokens: int) -> list[list[_Tree]]:
    """Trees of similar length together, at most `max_tokens` padded nodes a batch (one tree may
    exceed it).

    Longest first: if memory is short, it shows at once. Branched trees stay apart, since one of
    them would put the whole batch on the masked attention path.
    """
    batches: list[list[_Tree]] = []
    useful = [tree for tree in trees if tree.targets]
    for tree in sorted(useful, key=lambda tree: (any(tree.branches), -len(tree.tokens))):
        last = batches[-1] if batches else []
        alike = last and any(last[0].branches) == any(tree.branches)
        if alike and (len(last) + 1) * len(last[0].tokens) <= max_tokens:
            last.append(tree)
        else:
            batches.append([tree])
    return batches


def _pad(rows: list[list[int]], filler: int, device: torch.device) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor(
        [row + [filler] * (width - len(row)) for row in rows], dtype=torch.long, device=device
    )


class _TreeCache:
    """Tells the model where the nodes of a tree sit and what they see, through the protocol of a
    key/value cache.
    """

    def __init__(self, trees: list[_Tree], device: torch.device) -> None:
        self._positions = _pad([tree.positions for tree in trees], 0, device)
        self._branches = _pad([tree.branches for tree in trees], -1, device)
        self._parents = _pad([tree.parents for tree in trees], -1, device)
        self._masks: dict[int, Tensor] = {}

    def positions(self, n_tokens: int) -> Tensor:
        return self._positions

    def previous(self, x: Tensor) -> Tensor:
        index = self._parents.clamp(min=0)[..., None].expand_as(x)
        return x.gather(1, index).masked_fill((self._parents < 0)[..., None], 0)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        if window not in self._masks:
            self._masks[window] = self._visible(window)
        return attend(q, k, v, mask=self._masks[window])

    def _visible(self, window: int) -> Tensor:
        """(B, 1, T, T) bool: the prefix and one's own branch, no later position, at most `window`
        back.
        """
        distance = self._positions[:, :, None] - self._positions[:, None, :]
        branch = self._branches[:, None, :]
        visible = (distance >= 0) & ((branch == 0) | (branch == self._branches[:, :, None]))
        if window >= 0:
            visible &= distance <= window
        return visible[:, None]

    def advance(self, n_tokens: int) -> None:
        """Nothing to remember: the whole tree is forwarded at once."""


def _score_batch(
    model: GPT, trees: list[_Tree], device: torch.device
) -> list[tuple[int, float, bool]]:
    """(row number, nll, was first choice) of every target in the batch."""
    input_ids = _pad([tree.tokens for tree in trees], 0, device)
    cache = _TreeCache(trees, device) if any(any(tree.branches) for tree in trees) else None
    hidden = model.hidden(input_ids, cache)
    where = [(b, node, token) for b, tree in enumerate(trees) for _, node, token in tree.targets]
    rows, nodes, tokens = torch.tensor(where, dtype=torch.long, device=device).T
    scores = target_logprobs(model, hidden[rows, nodes], tokens)
    check_finite(scores.logprobs)
    numbers = [number for tree in trees for number, _, _ in tree.targets]
    nlls = (-scores.logprobs).tolist()
    return list(zip(numbers, nlls, scores.greedy.tolist(), strict=True))
