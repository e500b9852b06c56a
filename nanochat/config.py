"""Typed configuration: dataclass defaults < `--config file.yaml` < command line; every problem
reported at once.

A stage's settings are one dataclass. `parse` fills it, `dump` writes it back as YAML that `parse
--config` reads to an equal value. A dataclass may define `problems() -> list[str]` for checks that
span fields. Flags are accepted with dashes or underscores, as `--flag value` or `--flag=value`;
booleans as `--fp8`, `--fp8=True`, `--fp8 False` or `--no-fp8`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from nanochat.config_values import (
    FALSE,
    TRUE,
    Field,
    convert,
    example,
    fields_of,
    from_file_value,
    matches,
    options_of,
    type_name,
)
from nanochat.runtime.errors import rank

T = TypeVar("T")
MISSING = dataclasses.MISSING


def nearest(word: str, known: Sequence[str], prefix: str = "--") -> str:
    """`; did you mean --depth?` for the closest known spelling, or a pointer to the help."""
    names = {k.lstrip("-").replace("-", "_"): k for k in known}
    close = difflib.get_close_matches(word.lstrip("-").replace("-", "_"), list(names), 1, 0.5)
    return f"; did you mean {prefix}{names[close[0]].lstrip('-')}?" if close else "; see --help"


class Reader:
    """Sorts command-line words into fields; notes every problem instead of stopping at the
    first."""

    def __init__(self, fields: list[Field]):
        self.fields = fields
        self.flags = {n: f for f in fields if not f.positional for n in (f.flag, *f.aliases)}
        self.negated = {
            "--no-" + f.flag[2:]: f
            for f in fields
            if not f.positional and bool in options_of(f.type)
        }
        self.words: dict[str, list[str]] = {}
        self.config_file: str | None = None
        self.problems: list[str] = []

    @staticmethod
    def spelling(word: str) -> str:
        return "--" + word[2:].replace("_", "-") if word.startswith("--") else word

    def is_flag(self, word: str) -> bool:
        return word.startswith("--") or word.partition("=")[0] in self.flags

    def read(self, argv: Sequence[str]) -> None:
        words, free = list(argv), [f for f in self.fields if f.positional]
        while words:
            word = words.pop(0)
            name, equals, value = word.partition("=")
            name = self.spelling(name)
            if name == "--config":
                self.config_file = value if equals else (words.pop(0) if words else "")
            elif name in self.flags:
                self.take(self.flags[name], word, value if equals else None, words)
            elif name in self.negated and not equals:
                self.words[self.negated[name].name] = ["False"]
            elif not word.startswith("-") and free:
                self.words.setdefault(free[0].name, []).append(word)
                if not free[0].many:
                    free.pop(0)
            elif word.startswith("-"):
                if not equals and words and not self.is_flag(words[0]) and not free:
                    value = words.pop(
                        0
                    )  # the unknown flag's value, so that it is not reported a second time
                self.problems.append(f"{word}: unknown flag{nearest(name, list(self.flags))}")
            else:
                guess = (
                    f"; write --{word}"
                    if equals and self.spelling("--" + name) in self.flags
                    else "; see --help"
                )
                self.problems.append(f"{word}: unexpected word{guess}")

    def take(self, field: Field, word: str, value: str | None, words: list[str]) -> None:
        """Consume the value(s) of one flag from `words`."""
        if value is not None:
            taken = [value]
        elif options_of(field.type) == [bool]:
            taken = [words.pop(0)] if words and words[0].lower() in TRUE | FALSE else ["True"]
        elif field.many:
            taken = []
            while words and not self.is_flag(words[0]):
                taken.append(words.pop(0))
        else:
            taken = [words.pop(0)] if words and not self.is_flag(words[0]) else []
        if not taken:
            self.problems.append(f"{word}: needs a value ({type_name(field.type)}){example(field)}")
        elif field.many:
            self.words.setdefault(field.name, []).extend(taken)  # --data a --data b means both
        else:
            self.words[field.name] = taken


def read_file(path: str, fields: list[Field]) -> tuple[dict[str, Any], list[str]]:
    """Values from a YAML config file and everything wrong with it."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        return {}, [
            f"--config={path}: cannot be read ({error.strerror}); give an existing YAML file"
        ]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return {}, [
            f"--config={path}: not valid YAML ({str(error).splitlines()[0]}); write one `key: "
            "value` a line"
        ]
    if data is None:
        return {}, []
    if not isinstance(data, dict):
        return {}, [f"--config={path}: must hold `key: value` lines, not {type(data).__name__}"]
    by_name, values, problems = {f.name: f for f in fields}, {}, []
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in by_name:
            problems.append(
                f"{path}: {key}={value}: unknown setting{nearest(name, list(by_name), prefix='')}"
            )
            continue
        try:
            values[name] = from_file_value(value, by_name[name].type)
        except ValueError as error:
            problems.append(f"{path}: {key}={value}: {error}{example(by_name[name])}")
    return values, problems


def collect(cls: type[T], argv: Sequence[str]) -> tuple[T | None, list[str]]:
    """Build a config from words and report what is wrong: (config or None, problems). Writes
    nothing, never exits.
    """
    fields = fields_of(cls)
    reader = Reader(fields)
    reader.read(argv)
    values, problems = (
        read_file(reader.config_file, fields) if reader.config_file is not None else ({}, [])
    )
    problems += reader.problems
    for field in fields:
        if field.name in reader.words:
            words = reader.words[field.name]
            try:
                values[field.name] = convert(words, field.type)
            except ValueError as error:
                problems.append(f"{field.flag}={' '.join(words)}: {error}{example(field)}")
                if field.default is MISSING:
                    return None, problems
    missing = [f for f in fields if f.default is MISSING and f.name not in values]
    problems += [f"{f.flag}: must be given ({type_name(f.type)})" for f in missing]
    if missing:
        return None, problems
    config = cls(**values)
    return config, problems + list(getattr(config, "problems", list)())


def validate(config: Any) -> None:
    """Check a config made in Python: the type of every field, then its `problems()`. Raises
    ValueError with all.
    """
    problems = [
        f"{f.flag}={getattr(config, f.name)!r}: expected {type_name(f.type)}{example(f)}"
        for f in fields_of(type(config))
        if not matches(getattr(config, f.name), f.type)
    ]
    problems += list(getattr(config, "problems", list)()) if not problems else []
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
        about = (
            cls.__doc__ or ""
        ) + "\n\n--config FILE.yaml reads settings from a file; the command line wins."
        tyro.cli(cls, args=["--help"], prog=prog, description=about)
    config, problems = collect(cls, argv)
    if problems or config is None:
        if rank() == "0":  # one message, not one a rank
            print("\n".join(f"error: {p}" for p in dict.fromkeys(problems)), file=sys.stderr)
        raise SystemExit(2)
    return config


def plain(value: Any) -> Any:
    """A config value as plain YAML data."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return value


def as_dict(config: Any) -> dict[str, Any]:
    """Field values as plain data, in declaration order."""
    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def dump(config: Any, path: str | os.PathLike[str]) -> None:
    """Write the config as YAML that `--config` reads back to an equal value."""
    from nanochat.runtime.run_dir import atomic_write

    atomic_write(Path(path), yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True))
