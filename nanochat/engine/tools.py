"""The calculator a model may call while it answers, and the state machine that notices the call.

A call is `<|python_start|> expression <|python_end|>` in the sampled tokens. Its result goes into
the sequence as `<|output_start|> result <|output_end|>`, tokens the model did not choose. No
expression is ever executed: a small evaluator walks the syntax tree, with every number bounded, so
that no input can hang, crash or escape.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable

from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import SpecialIds

MAX_EXPRESSION_CHARS = 512
MAX_INTEGER_BITS = 512
MAX_CALL_TOKENS = 256

_STRING = re.compile(r"""'[^'\\\n]*'|"[^"\\\n]*\"""")
_ARITHMETIC = re.compile(r"[\d\s+\-*/%().,]*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d)")

Number = int | float
Value = Number | str


def use_calculator(expression: str) -> str | None:
    """The value of an arithmetic expression, or None when it is anything else. Never raises, never
    takes long.

    Numbers (commas between digits are ignored), `+ - * / // % **`, parentheses, and
    `"text".count("t")` on string literals. Whole results print as whole numbers: `48/2` is `24`.
    """
    expression = expression.strip()
    if not 0 < len(expression) <= MAX_EXPRESSION_CHARS:
        return None
    bare = _STRING.sub("", expression).replace(".count", "")
    if not _ARITHMETIC.fullmatch(bare) or not bare.isascii():
        return None  # no names, no escapes: nothing the parser could warn about or be slow at
    if not _STRING.search(expression):
        expression = _THOUSANDS.sub("", expression)
    try:
        return _printed(_number(ast.parse(" ".join(expression.splitlines()), mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError, TypeError):
        return None


def _printed(value: Number) -> str:
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise ValueError("not a number a person could use")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".12g")


def _value(node: ast.AST) -> Value:
    """Value of a syntax tree. ValueError for whatever is not arithmetic, ArithmeticError from the
    arithmetic.
    """
    match node:
        case ast.Constant(value=int() | float() | str() as constant):
            value: Value = constant
        case ast.UnaryOp(op=ast.UAdd()):
            value = _number(node.operand)
        case ast.UnaryOp(op=ast.USub()):
            value = -_number(node.operand)
        case ast.BinOp() if type(node.op) in OPERATORS:
            value = OPERATORS[type(node.op)](_number(node.left), _number(node.right))
        case ast.Call(func=ast.Attribute(value=text, attr="count"), args=[part], keywords=[]):
            value = _text(text).count(_text(part))
        case _:
            raise ValueError("not arithmetic")
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise ValueError("number too large")
    return value


def _number(node: ast.AST) -> Number:
    value = _value(node)
    if isinstance(value, str):
        raise ValueError("a text is no number")
    return value


def _text(node: ast.AST) -> str:
    value = _value(node)
    if not isinstance(value, str):
        raise ValueError("a number is no text")
    return value


def _divided(left: Number, right: Number) -> Number:
    whole = isinstance(left, int) and isinstance(right, int) and left % right == 0
    return left // right if whole else left / right


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if abs(base) > 1 and base.bit_length() * exponent > 2 * MAX_INTEGER_BITS:
            raise ValueError("number too large")
        if abs(base) <= 1:
            return base if exponent % 2 else abs(base)
        return base**exponent
    result = float(base) ** float(exponent) if exponent != 0 else 1
    if isinstance(result, complex):
        raise ValueError("not a real number")
    return result


OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divided,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}


class CalculatorCalls:
    """Follows one sequence's tokens and answers its calculator calls."""

    def __init__(self, tokenizer: Tokenizer, special: SpecialIds) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._call: list[int] | None = None

    def push(self, token: int) -> list[int]:
        """Take note of a sampled token; the tokens to force into the sequence after it, usually
        none.
        """
        special = self._special
        if token == special.python_start:
            self._call = []
        elif token == special.python_end and self._call is not None:
            call, self._call = self._call, None
            return self._result(call)
        elif self._call is not None:
            self._call.append(token)
            if len(self._call) > MAX_CALL_TOKENS:
                self._call = None
        return []

    def _result(self, call: list[int]) -> list[int]:
        special = self._special
        result = use_calculator(self._tokenizer.decode(call)) if call else None
        if result is None or special.output_start is None or special.output_end is None:
            return []
        return [special.output_start, *self._tokenizer.encode(result), special.output_end]
