"""Reads a public `tokenizer.pkl` (a pickled `tiktoken.Encoding`) without running anything from it.

A pickle is a program for a small stack machine, and unpickling runs it: it can import and call
anything. This file holds no call to Python's unpickler. It walks the opcodes and carries out the
few that build plain data; the only class name it accepts is `tiktoken.core.Encoding`, and even that
is only noted down, never imported from the file's wish.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass
from typing import Any

MAX_FILE_BYTES = 64 * 2**20  # the 200k-entry vocabularies in circulation are about 4 MB
MAX_OPCODES = 8_000_000
_CONSTANTS = frozenset(
    "BININT BININT1 BININT2 LONG1 SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES "
    "BINUNICODE8 BINBYTES8".split()
)
_FIELDS = frozenset({"name", "pat_str", "mergeable_ranks", "special_tokens"})


@dataclass(frozen=True, kw_only=True)
class EncodingState:
    """What a pickled `tiktoken.Encoding` is made of."""

    pattern: str
    ranks: dict[bytes, int]
    special_tokens: dict[str, int]


class _Mark:
    """Stands on the stack where a MARK opcode was."""


@dataclass
class _Encoding:
    """Stands for the class (`built` False) and then for its instance."""

    built: bool = False
    state: Any = None


def read_encoding_pickle(data: bytes) -> EncodingState:
    """The state of the one `tiktoken.Encoding` in `data`. ValueError for anything else, naming what
    was refused.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(
            f"tokenizer pickle of {len(data):,} bytes refused: more than {MAX_FILE_BYTES:,}"
        )
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
            if count > MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES:,} opcodes")
            machine.step(opcode.name, argument)
        return _checked(machine.result)
    except ValueError as error:
        raise ValueError(f"tokenizer pickle refused: {error}") from None
    except (
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(
            f"tokenizer pickle refused: malformed ({type(error).__name__}: {error})"
        ) from None


class _Machine:
    """The pickle stack machine, cut down to plain data and one inert class."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.stack.append(_Mark())
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "EMPTY_TUPLE":
            self.stack.append(())
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop_pair() if name == "SETITEM" else self._pop_to_mark())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._name_class(argument if name == "GLOBAL" else " ".join(self._pop_pair()))
        elif name in ("NEWOBJ", "BUILD"):
            self._build(name)
        elif name == "STOP":
            if len(self.stack) != 1:
                raise ValueError("the file does not end in one object")
            self.result = self.stack.pop()
        else:
            raise ValueError(f"opcode {name} has no place in a vocabulary")

    def _pop_pair(self) -> list[Any]:
        second = self.stack.pop()
        return [self.stack.pop(), second]

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            items.append(value)
        return items[::-1]

    def _set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise ValueError("items set on something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes):  # an exotic key could make hashing slow or fail
                raise ValueError(f"dictionary key of type {type(key).__name__}")
            self.stack[-1][key] = value

    def _name_class(self, dotted: str) -> None:
        if dotted != "tiktoken.core Encoding":
            raise ValueError(f"it asks for {dotted!r}; only tiktoken.core.Encoding is accepted")
        self.stack.append(_Encoding())

    def _build(self, name: str) -> None:
        target, value = self._pop_pair()
        if not isinstance(target, _Encoding) or target.built != (name == "BUILD"):
            raise ValueError(f"{name} on something that is not tiktoken.core.Encoding")
        if name == "NEWOBJ":
            if value != ():
                raise ValueError("Encoding created with arguments")
            self.stack.append(_Encoding(built=True))
        else:
            if target.state is not None:
                raise ValueError("Encoding built twice")
            target.state = value
            self.stack.append(target)


def _checked(result: Any) -> EncodingState:
    if not isinstance(result, _Encoding) or not result.built:
        raise ValueError(f"it holds a {type(result).__name__}, not a tiktoken.core.Encoding")
    state = result.state
    if isinstance(state, str):
        raise ValueError(
            f"it only names the vocabulary {state[:40]!r}; ask for that one by name instead"
        )
    if type(state) is not dict or set(state) != _FIELDS:
        raise ValueError(f"the Encoding's state must have exactly the fields {sorted(_FIELDS)}")
    ranks, special, pattern = state["mergeable_ranks"], state["special_tokens"], state["pat_str"]
    if type(pattern) is not str or type(ranks) is not dict or type(special) is not dict:
        raise ValueError("pat_str, mergeable_ranks or special_tokens has the wrong type")
    for table, kind in ((ranks, bytes), (special, str)):
        for key, value in table.items():
            if type(key) is not kind or type(value) is not int:
                raise ValueError(f"entry {key!r}: {value!r} is not {kind.__name__} -> int")
    return EncodingState(pattern=pattern, ranks=ranks, special_tokens=special)
