"""The calculator a model may call while it answers, and the state machine that notices the call.

A call is `<|python_start|> expression <|python_end|>` in the sampled tokens. Its result goes into
the sequence as `<|output_start|> result <|output_end|>`, tokens the model did not choose. No
expression is ever executed: a small evaluator walks the syntax tree, with every number bounded, so
that no input can hang, crash or escape.
"""

from __future__ import annotations

import ast
import math
import re

from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import SpecialIds

MAX_EXPRESSION_CHARS = 512
MAX_INTEGER_BITS = 512
MAX_CALL_TOKENS = 256

_STRING = re.compile(r"""'[^'\\\n]*'|"[^"\\\n]*\"""")
_ARITHMETIC = re.compile(r"[\d\s+\-*/%().,]*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d)")

Value = int | float | str


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
        return (
            None  # no names, no escapes: the parser sees nothing it could warn about or be slow at
        )
    if not _STRING.search(expression):
        expression = _THOUSANDS.sub("", expression)
    try:
        return _printed(_value(ast.parse(" ".join(expression.splitlines()), mode="eval").body))
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError, TypeError):
        return None


def _printed(value: Value) -> str:
    if isinstance(value, str):
        raise ValueError("a string is no number")
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
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
        return _bounded(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        operand = _number(node.operand)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        return _bounded(_combine(node.op, _number(node.left), _number(node.right)))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "count"
    ):
        if len(node.args) == 1 and not node.keywords:
            text, part = _value(node.func.value), _value(node.args[0])
            if isinstance(text, str) and isinstance(part, str):
                return text.count(part)
    raise ValueError("not arithmetic")


def _number(node: ast.AST) -> int | float:
    value = _value(node)
    if isinstance(value, str):
        raise ValueError("a string is no number")
    return value


def _bounded(value: Value) -> Value:
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise ValueError("number too large")
    return value


def _combine(operator: ast.operator, left: int | float, right: int | float) -> int | float:
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    if isinstance(operator, ast.Mult):
        return left * right
    if isinstance(operator, ast.Div):
        exact = (
            isinstance(left, int) and isinstance(right, int) and right != 0 and left % right == 0
        )
        return left // right if exact else left / right
    if isinstance(operator, ast.FloorDiv):
        return left // right
    if isinstance(operator, ast.Mod):
        return left % right
    if isinstance(operator, ast.Pow):
        return _power(left, right)
    raise ValueError("not arithmetic")


def _power(base: int | float, exponent: int | float) -> int | float:
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
