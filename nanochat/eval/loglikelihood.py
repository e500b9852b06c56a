"""Log-likelihoods of given continuations: the machine under CORE and lm-evaluation-harness.

Rows that ask about the same prompt (the choices of one question) are forwarded once, as a tree: the
shared prompt, then every continuation as a branch that sees the prompt and itself but not its
siblings. Trees are batched by length, and the head, the widest matrix of a small model, runs only
where a target is predicted.

Shape legend: B trees, T nodes (padded), D model width, N scored tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


@dataclass
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
    flat = [crop_left(row, context) for group in groups for row in group]
    trees: list[_Tree] = []
    first = 0
    for group in groups:
        numbers = range(first, first + len(group))
        trees += _plant(flat, numbers) if share_prefixes else [_single(flat, n) for n in numbers]
        first += len(group)
    scores = [Score(0.0, row.end - row.start, True) for row in flat]
    for batch in _batches(trees, max_tokens or default_max_tokens(device)):
        for number, nll, greedy in _score_batch(model, batch, device):
            old = scores[number]
            scores[number] = Score(old.nll + nll, old.n_tokens, old.greedy and greedy)
        if on_done is not None:
            on_done(len({number for tree in batch for number, _, _ in tree.targets}))
    regrouped, first = [], 0
    for group in groups:
        regrouped.append(scores[first : first + len(group)])
        first += len(group)
    return regrouped


def _single(rows: Sequence[ScoredRow], number: int) -> _Tree:
    row = rows[number]
    n = max(1, row.end - 1)  # the last token predicts nothing, so it is never forwarded
    tree = _Tree(list(row.tokens[:n]), list(range(n)), list(range(-1, n - 1)), [0] * n)
    tree.targets = [(number, t - 1, row.tokens[t]) for t in range(row.start, row.end)]
    return tree


def _plant(rows: Sequence[ScoredRow], numbers: Sequence[int]) -> list[_Tree]:
    """Trees over one group. Rows cropped by different amounts begin with different tokens and
    cannot share.
    """
    by_opening: dict[tuple[int, ...], list[int]] = {}
    for number in numbers:
        by_opening.setdefault(tuple(rows[number].tokens[:4]), []).append(number)
    trees = []
    for alike in by_opening.values():
        sequences = [rows[number].tokens[: max(1, rows[number].end - 1)] for number in alike]
        shared = common_prefix(sequences)
        total = sum(map(len, sequences))
        if len(alike) == 1 or shared * (len(alike) - 1) < MIN_SAVED_SHARE * total:
            trees += [_single(rows, number) for number in alike]
        else:
            trees.append(_branched(rows, alike, shared))
    return trees


def _branched(rows: Sequence[ScoredRow], numbers: Sequence[int], shared: int) -> _Tree:
    prefix = list(rows[numbers[0]].tokens[:shared])
    tree = _Tree(prefix, list(range(shared)), list(range(-1, shared - 1)), [0] * shared)
    for branch, number in enumerate(numbers, start=1):
        row, offset = rows[number], len(tree.tokens) - shared
        own = list(row.tokens[shared : max(1, row.end - 1)])
        tree.tokens += own
        tree.positions += range(shared, shared + len(own))
        tree.parents += [shared - 1 if i == 0 else shared + offset + i - 1 for i in range(len(own))]
        tree.branches += [branch] * len(own)
        for t in range(row.start, row.end):
            node = t - 1 if t - 1 < shared else t - 1 + offset
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
    done: list[list[_Tree]] = []
    for branched in (False, True):
        current: list[_Tree] = []
        for tree in sorted(
            (t for t in trees if t.targets and any(t.branches) == branched),
            key=lambda t: -len(t.tokens),
        ):
            if current and (len(current) + 1) * len(current[0].tokens) > max_tokens:
                done.append(current)
                current = []
            current.append(tree)
        if current:
            done.append(current)
    return done


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
