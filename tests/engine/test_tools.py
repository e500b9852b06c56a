"""The calculator: right, bounded and deaf to everything that is not arithmetic."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanochat.engine.tools import CalculatorCalls, use_calculator
from nanochat.tokenizer.special_tokens import SpecialIds


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", "24"),
        ("10/4", "2.5"),
        ("12*3", "36"),
        ("1,234+1", "1235"),
        ("1,000,000 / 8", "125000"),
        ("(2+3)*4 - -1", "21"),
        ("7//2", "3"),
        ("-7 // 2", "-4"),
        ("7 % 4", "3"),
        ("2**10", "1024"),
        ("2**-1", "0.5"),
        ("0.1+0.2", "0.3"),
        ("2.0*3", "6"),
        ("10**20/10**19", "10"),
        ("1/3", "0.333333333333"),
        (" 5 ", "5"),
        ("1**99999999", "1"),
        ('"strawberry".count("r")', "3"),
        ("'strawberry'.count('r')", "3"),
        ('"a,b,1,2".count(",")', "3"),
        ('"aa".count("a") + "b".count("b") * 2', "4"),
        ('"naïve café".count("é")', "1"),
    ],
)
def test_values(expression, value):
    assert use_calculator(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "x",
        "1/0",
        "1%0",
        "5//0",
        "0**-1",
        "(-8)**0.5",
        "9**9**9",
        "99999**99999",
        "2.0**99999",
        "1e400",
        "10**9999",
        '"abc"',
        '"a".upper()',
        '"a".count(1)',
        '"a".count("a", 0)',
        "1 if 1 else 2",
        "__import__('os')",
        "().__class__",
        "[1]*9",
        "1<2",
        "True",
        "lambda: 1",
        "print(1)",
        '"a"*9',
        "f'{1}'",
        "1;2",
        "(" * 300,
        "-" * 500,
        "1" * 513,
        "١+١",
        '"\\x41".count("A")',
        "(1, 2)",
        "1..count",
        "*1",
        "5 5",
        "\x00",
        "'a\nb'.count('a')",
    ],
)
def test_everything_else_is_none(expression):
    assert use_calculator(expression) is None


arithmetic = st.text(alphabet="0123456789+-*/%().,'\" countab\n", max_size=80)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), arithmetic))
@example("9**" * 100 + "9")
@example("(" * 250 + "1" + ")" * 250)
@example("-" * 511 + "1")
@example("1.5**" * 100 + "1.5")
def test_never_raises_and_never_takes_long(expression):
    start = time.perf_counter()
    result = use_calculator(expression)
    assert time.perf_counter() - start < 0.5
    assert result is None or len(result) < 400


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from("+-*"), st.integers(-(10**9), 10**9))
def test_integers_agree_with_python(a, operator, b):
    expected = {"+": a + b, "-": a - b, "*": a * b}[operator]
    assert use_calculator(f"{a}{operator}({b})") == str(expected)
    assert use_calculator(f"{a:,} {operator} ({b:,})") == str(expected)


def test_calls_are_noticed_and_answered(tokenizer):
    special = SpecialIds.of(tokenizer.special_tokens)
    calls = CalculatorCalls(tokenizer, special)
    forced = [
        calls.push(token)
        for token in [*tokenizer.encode("So "), special.python_start, *tokenizer.encode("6*7")]
    ]
    assert not any(forced)
    assert calls.push(special.python_end) == [
        special.output_start,
        *tokenizer.encode("42"),
        special.output_end,
    ]
    assert calls.push(special.python_end) == [], "an end without a start calls nothing"


def test_calls_that_are_no_arithmetic_get_no_result(tokenizer):
    special = SpecialIds.of(tokenizer.special_tokens)
    calls = CalculatorCalls(tokenizer, special)
    for token in [special.python_start, *tokenizer.encode("import os")]:
        calls.push(token)
    assert calls.push(special.python_end) == []
    for token in [special.python_start, special.python_end]:
        assert calls.push(token) == []
    for token in [special.python_start, *([tokenizer.encode("1")[0]] * 300)]:
        assert calls.push(token) == []
    assert calls.push(special.python_end) == [], "an endless call is given up"
