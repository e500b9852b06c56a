"""The fields of a config class, as the command line and config files see them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from nanochat.config.kinds import Kind

T = TypeVar("T")
REQUIRED = dataclasses.MISSING


@dataclass(frozen=True)
class Short:
    """A field's short flag: `source: Annotated[str, Short("-i")]`."""

    flag: str


class _ByPlace:
    """Marks a field that is given by its place and not by a flag."""


Positional = Annotated[T, _ByPlace]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a config class."""

    name: str
    kind: Kind
    default: Any
    shorts: tuple[str, ...]
    positional: bool
    help: str

    @property
    def flag(self) -> str:
        return self.name if self.positional else "--" + self.name.replace("_", "-")

    @property
    def spellings(self) -> tuple[str, ...]:
        """All flags of the field. None for one that is given by its place."""
        return () if self.positional else (self.flag, *self.shorts)

    def example(self) -> str:
        """`; use e.g. --depth 4` from the default, where that is worth showing."""
        if self.default in (REQUIRED, None, "") or self.kind.container:
            return ""
        return f"; {'' if self.positional else 'use '}e.g. {self._with_default()}"

    def _with_default(self) -> str:
        return str(self.default) if self.positional else f"{self.flag} {self.default}"


def fields_of(cls: type) -> list[Field]:
    """The fields of a config dataclass, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    helps = field_helps(cls)
    found = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = hints[field.name]
        marks: tuple[Any, ...] = getattr(annotation, "__metadata__", ())
        if marks:
            annotation = typing.get_args(annotation)[0]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found.append(
            Field(
                name=field.name,
                kind=Kind.of(annotation),
                default=default,
                shorts=tuple(mark.flag for mark in marks if isinstance(mark, Short)),
                positional=_ByPlace in marks,
                help=helps.get(field.name, ""),
            )
        )
    return found


def field_helps(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, in one line; those of base classes too."""
    helps: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                helps[statement.target.id] = " ".join(after.value.value.split())
    return helps
