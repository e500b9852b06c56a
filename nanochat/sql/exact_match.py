"""Whether two queries are the same text, but for spelling, layout, the names of aliases and the
order of conditions."""

from __future__ import annotations

from typing import Any

from nanochat.sql.dialect_parser import exp
from nanochat.sql.query_shape import shape_text


def same_query(first: Any, second: Any, dialect: str) -> bool:
    """Whether two parsed queries are the same; None is no query."""
    if first is None or second is None:
        return False
    return _text(first, dialect) == _text(second, dialect)


def _text(tree: Any, dialect: str) -> str:
    """The shape of a query in which literals count: each becomes a name."""
    tree = tree.copy()
    for literal in list(tree.find_all(exp.Literal)):
        written = f"{literal.is_string}:{literal.this}".encode().hex()
        literal.replace(exp.column(f"literal_{written}"))
    return shape_text(tree, dialect)
