"""What a field's annotation accepts, and words turned into it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.runtime.base_dir import expanded

TRUE = {"true", "1", "yes", "on"}
FALSE = {"false", "0", "no", "off"}
SCALARS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    Path: "a path",
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A scalar or one of several words, or a list or tuple of these; None where `optional`."""

    scalar: type
    choices: tuple[str, ...] = ()
    container: type[list[Any]] | type[tuple[Any, ...]] | None = None
    optional: bool = False

    @classmethod
    def of(cls, annotation: Any) -> Kind:
        """The kind that an annotation such as `int | None` or `tuple[str, ...]` means.

        Raises TypeError for an annotation that no command line can fill.
        """
        members = [annotation]
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            members = list(typing.get_args(annotation))
        optional = type(None) in members
        item, *others = [member for member in members if member is not type(None)]
        container = None
        origin, args = typing.get_origin(item), typing.get_args(item)
        if origin is list or (origin is tuple and args[1:] == (Ellipsis,)):
            container, item = origin, args[0]
        choices = typing.get_args(item) if typing.get_origin(item) is typing.Literal else ()
        scalar = str if choices else item
        if others or scalar not in SCALARS or not all(isinstance(c, str) for c in choices):
            raise TypeError(f"{annotation}: not a kind of setting")
        return cls(scalar=scalar, choices=choices, container=container, optional=optional)

    def __str__(self) -> str:
        """As a person would say it: `a whole number or None`, `one of base, mid`."""
        name = "one of " + ", ".join(self.choices) if self.choices else SCALARS[self.scalar]
        return (
            ("a list of " if self.container else "") + name + (" or None" if self.optional else "")
        )

    def accepts(self, value: Any) -> bool:
        """Whether `value` is of this kind already. A whole number is a float, True is no int."""
        if value is None:
            return self.optional
        if self.container:
            return isinstance(value, self.container) and all(map(self._accepts_item, value))
        return self._accepts_item(value)

    def _accepts_item(self, value: Any) -> bool:
        if isinstance(value, bool):
            return self.scalar is bool
        wanted = (int, float) if self.scalar is float else self.scalar
        return isinstance(value, wanted) and (not self.choices or value in self.choices)

    def read(self, words: Sequence[str]) -> Any:
        """The value that words of a command line or a file mean. Raises ValueError."""
        if self.optional and list(words) == ["None"]:
            return None
        if self.container:
            return self.container(map(self.read_item, words))
        if len(words) != 1:
            raise ValueError(f"expected {self}")
        return self.read_item(words[0])

    def read_item(self, word: str) -> Any:
        low = word.lower()
        if self.scalar is bool and low in TRUE | FALSE:
            return low in TRUE
        if self.scalar is float:  # YAML writes .inf and .nan
            word = re.sub(r"^([+-]?)\.(inf|nan)$", r"\1\2", low)
        if self.scalar is Path:  # no shell expands `~` in a file, nor every one in --out=~/x
            return expanded(word)
        try:
            if self.scalar is not bool and (not self.choices or word in self.choices):
                return self.scalar(word)
        except ValueError:
            pass
        raise ValueError(f"expected {self}")
