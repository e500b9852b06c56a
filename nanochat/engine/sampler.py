"""From logits to the next token of each sequence.

A sampled token is a function of the row's logits and of one number in [0, 1) drawn by the request's
own generator: the inverse of the cumulative distribution, likeliest token first. What the
neighbours in a batch do never changes it.

Shape legend: R rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nanochat.engine.finite import check_finite
from nanochat.engine.sequence import SamplingParams, Sequence

# A nucleus almost always fits in these; when it does not, eight times as many are tried.
TOP_P_CANDIDATES = 512
FIXED_CANDIDATES = 128  # the largest top_k that is drawn on the device
# Below this a temperature would divide by zero in fp32, and it is greedy long before.
COLDEST = 1e-30
NOT_FINITE = -1  # in place of an id: nothing could be drawn


class Sampled(NamedTuple):
    """A drawn token; `logprob` (nats, of the model's own distribution, before temperature) and
    `top` when asked for.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def sample(logits: Tensor, sequences: list[Sequence]) -> list[Sampled]:
    """One token for each row of `logits` (R, V) fp32, by the parameters and the generator of the
    row's sequence. NonFiniteLogits when a row has none to draw.
    """
    likeliest = _likeliest(logits)
    check_finite(logits.gather(1, likeliest[:, None]))
    tokens = likeliest.tolist()
    groups: dict[tuple[str, int], list[int]] = {}
    for row, sequence in enumerate(sequences):
        groups.setdefault(_method(sequence.params, logits.size(1)), []).append(row)
    for (method, n_candidates), rows in groups.items():
        if method == "greedy":
            continue
        part = logits if len(rows) == len(sequences) else logits[rows]
        members = [sequences[row] for row in rows]
        uniforms = _column([s.random.random() for s in members], logits.device)
        if method == "all":
            drawn = _invert(_weights(part, members), uniforms)
        else:
            drawn = _sample_candidates(part, members, uniforms, n_candidates, method == "nucleus")
        for row, token in zip(rows, drawn.tolist(), strict=True):
            tokens[row] = token
    sampled = [Sampled(token) for token in tokens]
    for row, sequence in enumerate(sequences):
        if sequence.params.logprobs is not None:
            sampled[row] = _with_logprobs(logits[row], tokens[row], sequence.params.logprobs)
    return sampled


def _likeliest(scores: Tensor) -> Tensor:
    """Where each row of scores (R, V) is highest for the first time (R); a NaN counts as the
    highest. On a CPU by numpy: 16 rows of 32,768 take torch 0.72 ms on its one thread beside the C
    code, numpy 0.20; a single row 0.045 and 0.002.
    """
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.detach().numpy().argmax(axis=-1))
    return scores.argmax(dim=-1)


def _method(params: SamplingParams, n_vocab: int) -> tuple[str, int]:
    """How to draw, and from how many candidates. Only rows that agree on both go together: where
    scores are equal, how many are asked for decides which come first.
    """
    if params.greedy:
        return "greedy", 1
    if params.top_k and params.top_k < n_vocab:
        return "candidates", params.top_k
    if params.top_p is not None and params.top_p < 1:
        return "nucleus", min(TOP_P_CANDIDATES, n_vocab)
    return "all", n_vocab


def _column(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=device)[:, None]


def _weights(scores: Tensor, sequences: list[Sequence]) -> Tensor:
    """Unnormalised probabilities (R, K) fp32 at each row's temperature, those below its min_p set
    to zero.

    The maximum comes off before the division, so that the coldest temperature gives a one-hot row
    and not infinities.
    """
    temperature = _column(
        [max(s.params.temperature, COLDEST) for s in sequences], scores.device
    ).float()
    weights = ((scores - scores.max(dim=-1, keepdim=True).values) / temperature).exp_()
    if any(s.params.min_p for s in sequences):  # the likeliest token's weight is 1
        weights = weights.masked_fill(
            weights < _column([s.params.min_p or 0.0 for s in sequences], scores.device), 0.0
        )
    return weights


def _sample_candidates(
    logits: Tensor, sequences: list[Sequence], uniforms: Tensor, n_candidates: int, nucleus: bool
) -> Tensor:
    """Draw from the `n_candidates` likeliest tokens of each row, cut to its min_p and then to its
    top_p -> (R) ids.

    `nucleus`: the rows have no top_k, so top_p is a share of the whole vocabulary's probability and
    may need more candidates than these.
    """
    n_vocab = logits.size(1)
    scores, ids = logits.topk(n_candidates, dim=-1)
    weights = _weights(scores, sequences)
    top_p = _column(
        [1.0 if s.params.top_p is None else s.params.top_p for s in sequences], logits.device
    )
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    total, flat = cumulative[:, -1:], []
    if nucleus and n_candidates < n_vocab:
        total = _weights(logits, sequences).sum(dim=-1, keepdim=True, dtype=torch.float64)
        flat = (cumulative[:, -1:] < top_p * total)[:, 0].nonzero()[:, 0].tolist()
    rank = torch.arange(n_candidates, device=logits.device)
    outside = (cumulative - weights >= top_p * total) & (
        rank > 0
    )  # the token that crosses top_p stays in
    drawn = ids.gather(1, _invert(weights.masked_fill(outside, 0.0), uniforms)[:, None])[:, 0]
    more = min(8 * n_candidates, n_vocab)
    for row in flat:
        here = slice(row, row + 1)
        drawn[row] = _sample_candidates(
            logits[here], sequences[here], uniforms[here], more, nucleus
        )[0]
    return drawn


def _invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Index (R) where the cumulative weight (R, K) passes uniforms (R, 1) in [0, 1)."""
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


def common_method(sequences: list[Sequence], n_vocab: int) -> str:
    """How `draw_fixed` can draw for all of them together: greedy, candidates, all; "logits" when it
    cannot.
    """
    methods = set()
    for params in (sequence.params for sequence in sequences):
        method, n_candidates = _method(params, n_vocab)
        many = method == "nucleus" or (method == "candidates" and n_candidates > FIXED_CANDIDATES)
        cut = method != "greedy" and (params.min_p or params.top_p not in (None, 1))
        if many or cut or params.logprobs is not None:
            return "logits"
        methods.add(method)
    methods.discard("greedy")
    return "greedy" if not methods else methods.pop() if len(methods) == 1 else "logits"


def draw_fixed(
    logits: Tensor, method: str, top_k: Tensor, temperature: Tensor, uniforms: Tensor
) -> Tensor:
    """What `sample` draws, for rows of one `common_method`, in a fixed order of operations without
    a word to the host.

    logits (R, V) fp32; top_k (R) int64, 1 for a greedy row; temperature and uniforms (R) float64 ->
    ids (R), NOT_FINITE for a row with a NaN.
    """
    best = logits.argmax(dim=-1)
    finite = logits.gather(1, best[:, None])[:, 0].isfinite()  # a NaN counts as the highest
    if method == "greedy":
        return torch.where(finite, best, NOT_FINITE)
    scores, ids = logits, None
    if method == "candidates":
        scores, ids = logits.topk(min(FIXED_CANDIDATES, logits.size(1)), dim=-1)
    weights = (
        (scores - scores.max(dim=-1, keepdim=True).values) / temperature.float()[:, None]
    ).exp()
    if ids is not None:
        outside = torch.arange(scores.size(1), device=scores.device) >= top_k[:, None]
        weights = weights.masked_fill(outside, 0.0)
    drawn = _invert(weights, uniforms[:, None])
    if ids is not None:
        drawn = ids.gather(1, drawn.clamp(max=ids.size(1) - 1)[:, None])[:, 0]
    return torch.where(finite, torch.where(top_k == 1, best, drawn), NOT_FINITE)


def _with_logprobs(logits: Tensor, token: int, n_top: int) -> Sampled:
    logprobs = logits.log_softmax(dim=-1)
    top: tuple[tuple[int, float], ...] = ()
    if n_top:
        values, ids = logprobs.topk(min(n_top, logits.numel()))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sampled(token, float(logprobs[token]), top)
