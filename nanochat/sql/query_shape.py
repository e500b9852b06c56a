"""The shape of a query: what is left when its literals, aliases, spelling and layout are taken
away. Training and test are split by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from nanochat.sql.dialect_parser import TokenizedSQL, TokenType, exp

LITERALS = frozenset(
    {
        TokenType.STRING,
        TokenType.NUMBER,
        TokenType.NATIONAL_STRING,
        TokenType.RAW_STRING,
        TokenType.HEX_STRING,
        TokenType.BIT_STRING,
        TokenType.BYTE_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.UNICODE_STRING,
    }
)


def fingerprint(statement: TokenizedSQL) -> str:
    """The same for statements that differ in literals, layout or case only. Quick: no tree is
    needed, so aliases count.
    """
    words: list[str] = []
    for token in statement.tokens:
        if token.token_type in LITERALS:
            # a list of literals is as long as it happens to be
            if words[-2:] == ["?", ","]:
                words.pop()
            else:
                words.append("?")
        else:
            words.append(token.text.casefold())
    return hashlib.sha256("\0".join(words).encode("utf-8", "replace")).hexdigest()[:16]


def shape_of(tree: Any, dialect: str) -> str:
    """The hash of a parsed query's shape; see `shape_text`."""
    return hashlib.sha256(shape_text(tree, dialect).encode("utf-8", "replace")).hexdigest()[:16]


def shape_text(tree: Any, dialect: str) -> str:
    """A query with `?` for every literal, lists of them one `?`, aliases numbered, names in lower
    case, the parts of an AND or OR in one order.
    """
    tree = tree.copy()
    aliases = _numbered_aliases(tree)
    for node in list(tree.walk()):
        if isinstance(node, exp.Identifier):
            name = node.name.casefold()
            node.set("this", aliases.get(name, name))
            node.set("quoted", False)
        elif isinstance(node, exp.Literal):
            node.replace(exp.Placeholder())
    for node in list(tree.find_all(exp.In, exp.Tuple, exp.Array)):
        kinds = {type(value) for value in node.expressions}
        if kinds == {exp.Placeholder}:
            node.set("expressions", [exp.Placeholder()])
    for node in tree.find_all(exp.Where, exp.Having):
        _sort(node, dialect)
    return tree.sql(dialect=dialect or None, comments=False, normalize_functions="upper")


def _numbered_aliases(tree: Any) -> dict[str, str]:
    """Alias -> t0, t1, ... for tables and c0, c1, ... for columns, as they come."""
    found: dict[str, str] = {}
    for node in tree.find_all(exp.TableAlias, exp.Alias, bfs=False):
        name = node.args.get("alias") if isinstance(node, exp.Alias) else node.args.get("this")
        if isinstance(name, exp.Identifier):
            kind = "c" if isinstance(node, exp.Alias) else "t"
            found.setdefault(name.name.casefold(), f"{kind}{len(found)}")
    return found


def _sort(owner: Any, dialect: str) -> None:
    """The conditions of an AND, or of an OR, in the order of their text."""
    top = owner.this
    for kind in (exp.And, exp.Or):
        if isinstance(top, kind):
            parts = sorted(_flat(top, kind), key=lambda part: part.sql(dialect=dialect or None))
            joined = parts[0]
            for part in parts[1:]:
                joined = kind(this=joined, expression=part)
            owner.set("this", joined)


def _flat(node: Any, kind: Any) -> Iterator[Any]:
    if isinstance(node, kind):
        yield from _flat(node.this, kind)
        yield from _flat(node.expression, kind)
    else:
        yield node


def order_matters(tree: Any) -> bool:
    """Whether the rows that a query returns are asked for in an order."""
    return tree.args.get("order") is not None


def is_query(tree: Any) -> bool:
    """Whether a statement only reads: SELECT, a set operation, or either behind WITH."""
    return isinstance(tree, (exp.Select, exp.SetOperation)) and not tree.args.get("into")


def tables_of(tree: Any) -> list[str]:
    """The tables that a query reads, as it names them, each once; names from WITH are none."""
    named = {cte.alias_or_name.casefold() for cte in tree.find_all(exp.CTE)}
    found: dict[str, str] = {}
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            continue  # a table function
        name = ".".join(part.name for part in table.parts)
        if name.casefold() not in named:
            found.setdefault(name.casefold(), name)
    return list(found.values())


def functions_as_tables(tree: Any) -> bool:
    """Whether a query reads from what is no table: files, addresses, generated numbers."""
    return any(not isinstance(table.this, exp.Identifier) for table in tree.find_all(exp.Table))
