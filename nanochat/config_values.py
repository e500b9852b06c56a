"""Values of config fields: what a type annotation accepts, and words or YAML values turned into
it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

TRUE, FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


@dataclasses.dataclass
class Field:
    """One field of a config class, as the command line sees it."""

    name: str
    type: Any
    default: Any
    aliases: tuple[str, ...] = ()
    positional: bool = False

    @property
    def flag(self) -> str:
        return self.name if self.positional else "--" + self.name.replace("_", "-")

    @property
    def many(self) -> bool:
        return any(typing.get_origin(t) in (list, tuple, set) for t in options_of(self.type))


def options_of(annotation: Any) -> list[Any]:
    """The members of a union, without None; [annotation] when it is no union."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [a for a in typing.get_args(annotation) if a is not type(None)]
    return [annotation]


def optional(annotation: Any) -> bool:
    return annotation is type(None) or type(None) in typing.get_args(annotation)


def fields_of(cls: type) -> list[Field]:
    """The fields of a config dataclass, in order, with aliases and positional marks read from
    `Annotated`.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for f in dataclasses.fields(cls):
        if not f.init:
            continue
        kind: Any = hints[f.name]
        extras: list[Any] = []
        if typing.get_origin(kind) is typing.Annotated:
            kind, *extras = typing.get_args(kind)
        aliases = tuple(a for e in extras for a in (getattr(e, "aliases", None) or ()))
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        found.append(Field(f.name, kind, default, aliases, any(e is POSITIONAL for e in extras)))
    return found


def type_name(annotation: Any) -> str:
    """A type as a person would write it: `int`, `int or None`, `one of base, mid`."""
    names = []
    for t in options_of(annotation):
        if typing.get_origin(t) is typing.Literal:
            names.append("one of " + ", ".join(map(str, typing.get_args(t))))
        elif typing.get_origin(t) in (list, tuple, set):
            names.append("a list of " + type_name(typing.get_args(t)[0]))
        else:
            known = {
                int: "a whole number",
                float: "a number",
                bool: "True or False",
                str: "text",
                Path: "a path",
            }
            names.append(known.get(t, getattr(t, "__name__", str(t))))
    return " or ".join(names + (["None"] if optional(annotation) else []))


def matches(value: Any, annotation: Any) -> bool:
    """True when `value` is already of the annotated type (a whole number counts as float, True
    never as int).
    """
    if value is None:
        return optional(annotation)
    for t in options_of(annotation):
        origin, args = typing.get_origin(t), typing.get_args(t)
        if t is Any:
            return True
        if origin is typing.Literal:
            ok = any(value == a and type(value) is type(a) for a in args)
        elif origin in (list, set) or (origin is tuple and args[-1:] == (Ellipsis,)):
            ok = isinstance(value, origin) and all(matches(v, args[0]) for v in value)
        elif origin is tuple:
            ok = (
                isinstance(value, tuple)
                and len(value) == len(args)
                and all(map(matches, value, args))
            )
        elif origin is dict:
            ok = isinstance(value, dict) and all(
                matches(k, args[0]) and matches(v, args[1]) for k, v in value.items()
            )
        elif isinstance(value, bool):
            ok = t is bool
        else:
            ok = isinstance(value, (int, float) if t is float else (origin or t))
        if ok:
            return True
    return False


def convert(words: Sequence[str], annotation: Any) -> Any:
    """Command-line words as a value of the annotated type, through tyro. Raises ValueError with
    what was expected.
    """
    kinds = options_of(annotation)
    if (
        len(words) == 1
        and kinds in ([str], [Path])
        and not (words[0] == "None" and optional(annotation))
    ):
        return kinds[0](words[0])  # taken as written, also when it begins with a dash
    if kinds == [bool]:
        words = [
            {**dict.fromkeys(TRUE, "True"), **dict.fromkeys(FALSE, "False")}.get(w.lower(), w)
            for w in words
        ]
    if kinds == [int]:
        words = [w.replace("_", "") for w in words]
    silent = io.StringIO()
    try:
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            return tyro.cli(annotation, args=list(words), console_outputs=False, add_help=False)
    except SystemExit:
        raise ValueError(f"expected {type_name(annotation)}") from None


def from_file_value(value: Any, annotation: Any) -> Any:
    """A YAML value as the annotated type: lists become tuples, `1e-3` (text in YAML) a number.
    Raises ValueError.
    """
    if value is not None and float in options_of(annotation) and type(value) is int:
        return value if int in options_of(annotation) else float(value)
    for t in options_of(annotation):
        if typing.get_origin(t) in (tuple, set) and isinstance(value, list):
            value = typing.get_origin(t)(value)
        if t is Path and isinstance(value, str):
            return Path(value)
    if matches(value, annotation):
        return value
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return convert([str(value)], annotation)
    raise ValueError(f"expected {type_name(annotation)}")


def example(field: Field) -> str:
    """`; use e.g. --depth 4` from the default, where the default is worth showing."""
    if (
        field.default is dataclasses.MISSING
        or field.default in (None, "")
        or isinstance(field.default, (list, tuple, dict, set))
    ):
        return ""
    return (
        f"; use e.g. {field.flag} {field.default}"
        if not field.positional
        else f"; e.g. {field.default}"
    )
