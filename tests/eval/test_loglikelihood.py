"""Scoring trees of continuations gives what scoring every row alone gives."""

from __future__ import annotations

import random

import pytest
import torch

from nanochat import logprobs
from nanochat.eval.loglikelihood import ScoredRow, common_prefix, crop_left, score_groups

# a short window is then 128 tokens, so prefixes longer than that show whether windows are kept
CONTEXT = 160


def alone(model, row):
    """The definition: one row, one plain forward, full logits."""
    row = crop_left(row, model.config.sequence_len)
    ids = torch.tensor([list(row.tokens)])
    logits = model(ids)[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    span = slice(row.start - 1, row.end - 1)
    return losses[span].sum().item(), bool((logits[:-1].argmax(-1) == ids[0, 1:])[span].all())


def some_groups(seed=0, n=12):
    rng = random.Random(seed)

    def tokens(low, high):
        return [rng.randrange(200) for _ in range(rng.randint(low, high))]

    groups = []
    for _ in range(n):
        prefix = [256, *tokens(1, 190)]
        rows = [prefix + tokens(1, 12) for _ in range(rng.randint(1, 4))]
        rows += [rows[0]] if rng.random() < 0.3 else []  # the same choice twice
        start = common_prefix(rows) if len(rows) > 1 and rows[0] != rows[-1] else len(prefix)
        groups.append([ScoredRow(row, start, len(row)) for row in rows])
    tail = tokens(5, 5)
    groups.append([ScoredRow([256, *tokens(3, 9), *tail], 0 + 4, 9) for _ in range(2)])
    groups.append([ScoredRow([256, 5], 1, 2)])
    return groups


@pytest.mark.parametrize(
    "generation, pattern", [("classic", "L"), ("modern", "SSL"), ("modern", "L")]
)
@pytest.mark.parametrize("share", [True, False])
def test_equals_scoring_each_row_alone(make_model, generation, pattern, share):
    model = make_model(generation, CONTEXT, n_layer=3, window_pattern=pattern)
    groups = some_groups()
    seen = []
    scores = score_groups(model, groups, max_tokens=600, share_prefixes=share, on_done=seen.append)
    for group, found in zip(groups, scores, strict=True):
        for row, score in zip(group, found, strict=True):
            nll, greedy = alone(model, row)
            assert score.nll == pytest.approx(nll, rel=1e-4, abs=1e-4) and score.greedy == greedy
            assert score.n_tokens == row.end - row.start
    assert sum(seen) >= sum(map(len, groups))


def test_greedy_is_seen(model):
    """A continuation made of the model's own first choices is greedy; one other token in it is
    not."""
    ids = [256, 3, 4]
    for _ in range(4):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    other = [*ids[:-1], (ids[-1] + 1) % 200]
    (scores,) = score_groups(model, [[ScoredRow(ids, 3, 7), ScoredRow(other, 3, 7)]])
    assert [score.greedy for score in scores] == [True, False]


def test_batches_are_bounded_and_sorted(monkeypatch, model):
    shapes = []
    hidden = model.hidden
    monkeypatch.setattr(
        model,
        "hidden",
        lambda ids, cache=None: shapes.append(tuple(ids.shape)) or hidden(ids, cache),
    )
    score_groups(model, some_groups(3, 30), max_tokens=300)
    assert len(shapes) > 5 and all(rows == 1 or rows * width <= 300 for rows, width in shapes)


@pytest.mark.parametrize(("share", "nodes"), [(True, 80 + 4), (False, 4 * 81)])
def test_sharing_forwards_fewer_nodes(monkeypatch, model, share, nodes):
    prefix = list(range(80))
    group = [ScoredRow([*prefix, i, i + 1], 80, 82) for i in range(4)]
    seen = []
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, cache=None: seen.append(ids.numel()) or hidden(ids, cache)
    )
    score_groups(model, [group], share_prefixes=share)
    assert sum(seen) == nodes


def test_logits_are_computed_in_pieces(monkeypatch, model):
    group = [[ScoredRow(list(range(100)), 1, 100)]]
    whole = score_groups(model, group)[0][0]
    monkeypatch.setitem(logprobs.CHUNK_BYTES, "cpu", 7 * 4 * model.config.vocab_size)
    assert score_groups(model, group)[0][0].nll == pytest.approx(whole.nll, rel=1e-6)


def test_crop_left_moves_the_span():
    assert crop_left(ScoredRow([1, 2, 3, 4, 5], 3, 5), 4) == ScoredRow([2, 3, 4, 5], 2, 4)
    assert crop_left(ScoredRow([1, 2, 3, 4, 5], 1, 5), 3) == ScoredRow(
        [3, 4, 5], 1, 3
    )  # the first of three has no context left
    assert crop_left(ScoredRow([1, 2], 1, 2), 2) == ScoredRow([1, 2], 1, 2)
