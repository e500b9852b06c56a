"""A config from a file and a command line, its checks, and back to YAML."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nanochat.config.command_line import CommandLine
from nanochat.config.config_file import read_file
from nanochat.config.fields import REQUIRED, fields_of
from nanochat.config.help_page import help_page
from nanochat.runtime.errors import lines, rank
from nanochat.runtime.files import atomic_write
from nanochat.runtime.output import output_is_the_result

T = TypeVar("T")


def collect(cls: type[T], argv: Sequence[str]) -> tuple[T | None, list[str]]:
    """Build a config from words -> (config or None, everything wrong). Writes nothing, never
    exits.
    """
    fields = fields_of(cls)
    gone: dict[str, str] = getattr(cls, "GONE", {})
    line = CommandLine(fields, argv, gone)
    values: dict[str, Any] = {}
    problems: list[str] = []
    if line.config_file is not None:
        values, problems = read_file(line.config_file, fields, gone)
    problems += line.problems
    unread = set()
    for field in fields:
        words = line.words.get(field.name)
        if words is None:
            continue
        try:
            values[field.name] = field.kind.read(words)
        except ValueError as error:
            problems.append(f"{field.flag}={' '.join(words)}: {error}{field.example()}")
            unread.add(field.name)
    missing = [f for f in fields if f.default is REQUIRED and f.name not in values]
    problems += [f"{f.flag}: must be given ({f.kind})" for f in missing if f.name not in unread]
    if missing:
        return None, problems
    config = cls(**values)
    return config, problems + checks(config)


def checks(config: Any) -> list[str]:
    """What the config's own `problems()` says."""
    return list(getattr(config, "problems", list)())


def validate(config: Any) -> None:
    """Check a config made in Python: the type of every field, then its `problems()`.

    Raises ValueError with all of them.
    """
    problems = []
    for field in fields_of(type(config)):
        value = getattr(config, field.name)
        if not field.kind.accepts(value):
            problems.append(f"{field.flag}={value!r}: expected {field.kind}{field.example()}")
    problems = problems or checks(config)
    if problems:
        raise ValueError("\n".join(problems))


def parse(cls: type[T], argv: Sequence[str] | None = None, prog: str | None = None) -> T:
    """Config from `argv` (default: the process's). On problems prints one line each to stderr and
    exits with code 2.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--"]:  # torchrun -m scripts.base_train -- --depth=20
        argv = argv[1:]
    if "-h" in argv or "--help" in argv:
        output_is_the_result()
        page = help_page(cls, fields_of(cls), prog or Path(sys.argv[0]).name)
        print(page, end="", flush=True)
        raise SystemExit(0)
    config, problems = collect(cls, argv)
    if problems or config is None:
        if rank() == "0":  # one message, not one a rank
            for line in dict.fromkeys(lines(ValueError("\n".join(problems)))):
                print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2)
    return config


def plain(value: Any) -> Any:
    """A config value as plain YAML data."""
    if isinstance(value, Path):
        return str(value)
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def as_dict(config: Any) -> dict[str, Any]:
    """Field values as plain data, in declaration order."""
    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def dump(config: Any, path: str | os.PathLike[str]) -> None:
    """Write the config as YAML that `--config` reads back to an equal value."""
    atomic_write(path, yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True))
