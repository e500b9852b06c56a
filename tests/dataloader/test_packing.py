"""Packing: full rows, nothing lost, nothing starved, and the chat rules. Pure, so checked with
random lengths.
"""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.dataloader.packing import Packer, Segment, count_rows, split_evenly

lengths_list = st.lists(st.integers(1, 60), min_size=1, max_size=60)


def pack(lengths: list[int], capacity: int, splittable: bool, buffer: int) -> list[list[Segment]]:
    packer = Packer(capacity, splittable, buffer)
    rows, todo = [], list(enumerate(lengths))
    while True:
        while todo and packer.wants_more():
            packer.add(*todo.pop(0))
        row = packer.next_row()
        if not row:
            return rows
        rows.append(row)


@settings(max_examples=200, deadline=None)
@given(lengths_list, st.integers(2, 40), st.integers(1, 8))
def test_text_rows_are_full_and_no_token_is_lost(lengths, capacity, buffer):
    rows = pack(lengths, capacity, True, buffer)
    assert all(sum(s.length for s in row) == capacity for row in rows[:-1])
    assert sum(s.length for s in rows[-1]) <= capacity
    for document, length in enumerate(lengths):
        parts = [s for row in rows for s in row if s.document == document]
        assert parts[0].start == 0 and parts[-1].stop == length
        assert all(a.stop == b.start for a, b in itertools.pairwise(parts))
    assert all(s.stop == lengths[s.document] for row in rows for s in row[:-1]), (
        "only the end of a row may be cut"
    )


@settings(max_examples=200, deadline=None)
@given(lengths_list, st.integers(2, 40), st.integers(1, 8))
def test_conversations_are_whole_or_truncated_and_come_once(lengths, capacity, buffer):
    rows = pack(lengths, capacity, False, buffer)
    assert all(sum(s.length for s in row) <= capacity for row in rows)
    assert sorted(s.document for row in rows for s in row) == list(range(len(lengths)))
    assert all(
        s.start == 0 and s.stop == min(lengths[s.document], capacity) for row in rows for s in row
    )


@settings(max_examples=100, deadline=None)
@given(lengths_list, st.integers(2, 40), st.booleans(), st.integers(1, 8))
def test_every_row_begins_with_the_oldest_piece(lengths, capacity, splittable, buffer):
    packer = Packer(capacity, splittable, buffer)
    for document, length in enumerate(lengths):
        packer.add(document, length)
    while packer.pieces:
        oldest = packer.pieces[0]
        first = packer.next_row()[0]
        assert (first.document, first.start) == (oldest.document, oldest.start)


@given(lengths_list, st.integers(2, 40), st.booleans(), st.integers(1, 8))
def test_count_rows_counts_what_packing_makes(lengths, capacity, splittable, buffer):
    assert count_rows(lengths, capacity, splittable, buffer) == len(
        pack(lengths, capacity, splittable, buffer)
    )


def test_best_fit_then_cut_the_longest():
    packer = Packer(10, True, 4)
    for document, length in enumerate([4, 30, 5, 3, 20]):
        packer.add(document, length)
    assert packer.next_row() == [Segment(0, 0, 4), Segment(2, 0, 5), Segment(1, 0, 1)]
    assert packer.pieces[0] == Segment(1, 1, 30)


def test_rest_of_a_cut_document_pays_for_its_own_bos():
    packer = Packer(10, True, 1)
    packer.add(7, 15)
    assert packer.next_row() == [Segment(7, 0, 10)]
    assert packer.next_row() == [Segment(7, 10, 15)]
    assert Segment(7, 10, 15).length == 6


@given(st.integers(0, 50), st.integers(1, 9))
def test_split_evenly_covers_everything_once(count, parts):
    ranges = [split_evenly(count, parts, i) for i in range(parts)]
    assert [x for r in ranges for x in r] == list(range(count))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1
