"""When two results are the same answer."""

from __future__ import annotations

import pytest

from nanochat.sql.match import same_result, same_value


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")], True),
        ([(1, "a"), (1, "a")], [(1, "a")], False),  # bags, not sets
        ([(1, "a")], [("a", 1)], True),  # columns in any order
        ([(1, 2), (3, 4)], [(2, 1), (3, 4)], False),  # but in one order for all rows
        ([(1, 1), (2, 1)], [(1, 2), (1, 1)], True),
        ([(1.0,)], [(1,)], True),
        ([(0.1 + 0.2,)], [(0.3,)], True),
        ([(1_000_000.0,)], [(1_000_002.0,)], False),
        ([(None,)], [(0,)], False),
        ([(None,)], [("",)], False),
        ([("1",)], [(1,)], False),
        ([(True,)], [(1,)], True),
        ([(1,)], [(1, 2)], False),
        ([(1,)], [], False),
        ([], [], True),
        ([(None, 2), (1, None)], [(1, None), (None, 2)], True),
        ([(float("nan"),)], [(float("nan"),)], True),
        ([("é",)], [("e",)], False),
        ([(10**400,)], [(10**400,)], True),
    ],
)
def test_results_are_compared_as_bags(expected, found, same):
    assert same_result(expected, found) is same
    assert same_result(found, expected) is same


def test_order_counts_where_it_is_asked_for():
    rows = [(1,), (2,)]
    assert same_result(rows, rows, order_matters=True)
    assert not same_result(rows, rows[::-1], order_matters=True)
    assert same_result([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], order_matters=True)


def test_columns_may_be_held_to_their_order():
    assert not same_result([(1, "a")], [("a", 1)], columns_ordered=True)


def test_many_equal_columns_are_matched_at_once():
    row = tuple([1] * 12 + [2])
    assert same_result([row], [row[::-1]])
    assert not same_result([row], [(1,) * 13])


def test_numbers_and_text_never_agree():
    assert not same_value("1.0", 1.0)
    assert same_value([1, 2.0], [1.0, 2])
