"""Typed configuration: dataclass defaults < `--config file.yaml` < command line, every problem
reported at once.

A command's settings are one dataclass. `parse` fills it, `dump` writes it as YAML that `--config`
reads back to an equal value. A docstring under a field is its help. A dataclass may define
`problems() -> list[str]` for checks that span fields.

The parser is our own because the ones there are stop at the first error and know no config file.
"""

from nanochat.config.fields import Positional, Short, fields_of
from nanochat.config.parsing import as_dict, collect, dump, parse, validate

__all__ = [
    "Positional",
    "Short",
    "as_dict",
    "collect",
    "dump",
    "fields_of",
    "parse",
    "validate",
]
