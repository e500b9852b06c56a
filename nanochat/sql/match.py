"""Whether two results are the same answer, as BIRD and the test-suite metric compare them (arXiv
2305.03111, 2010.02840): bags of rows, in order only where the question asks for one, numbers within
a tolerance, columns in any order unless the question fixes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = Sequence[Any]
TOLERANCE = 1e-6  # relative, and absolute below 1
DIGITS = 5  # of a number, by which rows are sorted before they are compared


def same_result(
    expected: Sequence[Row],
    found: Sequence[Row],
    order_matters: bool = False,
    columns_ordered: bool = False,
) -> bool:
    """Whether `found` answers what `expected` answers."""
    if len(expected) != len(found):
        return False
    if not expected:
        return True
    width = len(expected[0])
    if any(len(row) != width for row in (*expected, *found)):
        return False
    if _same_rows(expected, found, order_matters):
        return True
    if columns_ordered or width == 1:
        return False
    order = _matching_columns(expected, found, order_matters, [])
    return order is not None


def _matching_columns(
    expected: Sequence[Row], found: Sequence[Row], order_matters: bool, chosen: list[int]
) -> list[int] | None:
    """For each column of `expected` one of `found`, so that the rows agree; None where there is no
    such order. Only columns that agree by themselves are tried.
    """
    at = len(chosen)
    if at == len(expected[0]):
        arranged = [[row[column] for column in chosen] for row in found]
        return chosen if _same_rows(expected, arranged, order_matters) else None
    wanted = [[row[at]] for row in expected]
    seen: list[list[Row]] = []
    for column in range(len(expected[0])):
        values: list[Row] = [[row[column]] for row in found]
        # Equal columns may stand for each other, so one of them is enough.
        if column in chosen or values in seen or not _same_rows(wanted, values, order_matters):
            continue
        seen.append(values)
        order = _matching_columns(expected, found, order_matters, [*chosen, column])
        if order is not None:
            return order
    return None


def _same_rows(expected: Sequence[Row], found: Sequence[Row], order_matters: bool) -> bool:
    if not order_matters:
        expected, found = sorted(expected, key=_row_key), sorted(found, key=_row_key)
    return all(
        same_value(a, b)
        for mine, theirs in zip(expected, found, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are equal: 1, 1.0 and true are, NULL only to NULL, text never to a
    number.
    """
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        if isinstance(a, float) and math.isnan(a):
            return isinstance(b, float) and math.isnan(b)
        try:
            return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        except OverflowError:  # a whole number beyond all floats
            return a == b
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same_value, a, b))
    return bool(a == b) and isinstance(a, (int, float)) == isinstance(b, (int, float))


def _row_key(row: Row) -> tuple[tuple[int, float, str], ...]:
    return tuple(map(_value_key, row))


def _value_key(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, (int, float)):
        if isinstance(value, float) and math.isnan(value):
            return 1, 0.0, ""
        try:
            return 2, float(f"{value:.{DIGITS}g}"), ""
        except OverflowError:
            return 2, math.inf, ""
    return 3, 0.0, str(value)
