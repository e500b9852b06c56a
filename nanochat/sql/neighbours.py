"""Queries beside a query: the same but for one thing that people and models get wrong. A filling is
good when the results of these differ from the expected one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nanochat.sql.created_tables import KeyedTable
from nanochat.sql.dialect_parser import exp

MOST_OF_A_KIND = 6
COMPARED = {
    exp.GT: (exp.GTE, exp.LT, exp.EQ),
    exp.GTE: (exp.GT, exp.LTE, exp.EQ),
    exp.LT: (exp.LTE, exp.GT, exp.EQ),
    exp.LTE: (exp.LT, exp.GTE, exp.EQ),
    exp.EQ: (exp.NEQ,),
    exp.NEQ: (exp.EQ,),
}
AGGREGATES = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max)


def neighbours(tree: Any, tables: Sequence[KeyedTable], dialect: str, seed: str) -> list[str]:
    """Their texts in `dialect`, each once, none equal to the query's own."""
    rng = random.Random(seed)
    own = _text(tree, dialect)
    found: dict[str, None] = {}
    for make in MAKERS:
        of_kind = {_text(changed, dialect): None for changed in make(tree, tables)}
        of_kind.pop(own, None)
        texts = list(of_kind)
        if len(texts) > MOST_OF_A_KIND:
            texts = rng.sample(texts, MOST_OF_A_KIND)
        found |= dict.fromkeys(texts)
    return list(found)


def _text(tree: Any, dialect: str) -> str:
    from sqlglot.errors import ErrorLevel

    # What a dialect cannot say (INTERSECT ALL) fails when it is run, and is told from it then.
    return str(
        tree.sql(dialect=dialect or None, comments=False, unsupported_level=ErrorLevel.IGNORE)
    )


def _each(tree: Any, kinds: Any, change: Callable[[Any], Iterator[Any] | None]) -> Iterator[Any]:
    """For every node of a kind, copies of the tree in which it is replaced by what `change` makes
    of it.
    """
    for number, node in enumerate(list(tree.find_all(kinds))):
        for new in change(node) or ():
            copy = tree.copy()
            twin = list(copy.find_all(kinds))[number]
            if new is None:
                twin.pop()
            else:
                twin.replace(new)
            yield copy


def _set(tree: Any, kinds: Any, change: Callable[[Any], bool]) -> Iterator[Any]:
    """For every node of a kind, a copy of the tree in which `change` has altered it and said
    so.
    """
    for number in range(len(list(tree.find_all(kinds)))):
        copy = tree.copy()
        if change(list(copy.find_all(kinds))[number]):
            yield copy


def _without_conditions(tree: Any, tables: Any) -> Iterator[Any]:
    yield from _each(tree, (exp.Where, exp.Having), lambda node: iter([None]))
    yield from _each(
        tree, (exp.And, exp.Or), lambda node: iter([node.this.copy(), node.expression.copy()])
    )
    other = {exp.And: exp.Or, exp.Or: exp.And}
    yield from _each(
        tree,
        (exp.And, exp.Or),
        lambda node: iter([other[type(node)](this=node.this, expression=node.expression).copy()]),
    )


def _next_bounds(tree: Any, tables: Any) -> Iterator[Any]:
    def touching(node: Any) -> Iterator[Any]:
        kind = COMPARED[type(node)][0]
        yield kind(this=node.this.copy(), expression=node.expression.copy())

    yield from _each(tree, (exp.GT, exp.GTE, exp.LT, exp.LTE), touching)


def _other_bounds(tree: Any, tables: Any) -> Iterator[Any]:
    def compared(node: Any) -> Iterator[Any]:
        for kind in COMPARED[type(node)]:
            yield kind(this=node.this.copy(), expression=node.expression.copy())

    yield from _each(tree, tuple(COMPARED), compared)

    def number(node: Any) -> Iterator[Any]:
        if not node.is_string and not isinstance(node.parent, (exp.Limit, exp.Offset)):
            value = float(node.this) if "." in node.this else int(node.this)
            yield exp.Literal.number(value + 1)
            yield exp.Literal.number(abs(value - 1))

    yield from _each(tree, exp.Literal, number)


def _other_aggregates(tree: Any, tables: Any) -> Iterator[Any]:
    def other(node: Any) -> Iterator[Any]:
        inner = node.this
        if isinstance(inner, exp.Star) or inner is None:
            return
        bare = inner.expressions[0] if isinstance(inner, exp.Distinct) else inner
        for kind in AGGREGATES:
            if not isinstance(node, kind):
                yield kind(this=bare.copy())
        if isinstance(node, exp.Count):
            yield exp.Count(this=exp.Star())
            if isinstance(inner, exp.Distinct):
                yield exp.Count(this=bare.copy())
            else:
                yield exp.Count(this=exp.Distinct(expressions=[bare.copy()]))
        if not node.find_ancestor(exp.Having):
            yield bare.copy()

    yield from _each(tree, AGGREGATES, other)


def _other_distinct(tree: Any, tables: Any) -> Iterator[Any]:
    def turn(select: Any) -> bool:
        select.set("distinct", None if select.args.get("distinct") else exp.Distinct())
        return True

    yield from _set(tree, exp.Select, turn)

    def all_rows(node: Any) -> bool:
        node.set("distinct", not node.args.get("distinct"))
        return True

    yield from _set(tree, exp.SetOperation, all_rows)
    yield from _each(
        tree, exp.SetOperation, lambda node: iter([node.this.copy(), node.expression.copy()])
    )


def _other_order(tree: Any, tables: Any) -> Iterator[Any]:
    def turn(node: Any) -> bool:
        node.set("desc", not node.args.get("desc"))
        return True

    yield from _set(tree, exp.Ordered, turn)
    yield from _each(tree, (exp.Order, exp.Limit, exp.Offset), lambda node: iter([None]))

    def longer(node: Any) -> bool:
        count = node.expression
        if not isinstance(count, exp.Literal) or count.is_string:
            return False
        node.set("expression", exp.Literal.number(int(float(count.this)) + 1))
        return True

    yield from _set(tree, (exp.Limit, exp.Offset), longer)


def _other_joins(tree: Any, tables: Any) -> Iterator[Any]:
    def turn(node: Any) -> bool:
        if not (node.args.get("on") or node.args.get("using")):
            return False
        node.set("side", None if node.args.get("side") else "LEFT")
        node.set("kind", None)
        return True

    yield from _set(tree, exp.Join, turn)


def _other_groups(tree: Any, tables: Any) -> Iterator[Any]:
    yield from _each(tree, exp.Group, lambda node: iter([None]))

    def shorter(node: Any) -> bool:
        if len(node.expressions) < 2:
            return False
        node.set("expressions", node.expressions[1:])
        return True

    yield from _set(tree, exp.Group, shorter)
    columns = [column.name for table in tables for column in table.table.columns]

    def another(node: Any) -> Iterator[Any]:
        if isinstance(node.parent, exp.Group):
            for name in columns:
                yield _column_like(node, name)

    yield from _each(tree, exp.Column, another)


def _other_columns(tree: Any, tables: Any) -> Iterator[Any]:
    """Another column of the schema where one is shown, aggregated or compared."""
    columns = [column.name for table in tables for column in table.table.columns]

    def another(node: Any) -> Iterator[Any]:
        if not node.find_ancestor(exp.Group, exp.Order, exp.Join):
            for name in columns:
                if name.casefold() != node.name.casefold():
                    yield _column_like(node, name)

    yield from _each(tree, exp.Column, another)

    def fewer(select: Any) -> bool:
        if len(select.expressions) < 2:
            return False
        select.set("expressions", select.expressions[:-1])
        return True

    yield from _set(tree, exp.Select, fewer)


def _column_like(node: Any, name: str) -> Any:
    return exp.column(exp.to_identifier(name, quoted=True), table=node.table or None)


def _other_nulls(tree: Any, tables: Any) -> Iterator[Any]:
    def known(node: Any) -> Iterator[Any]:
        if isinstance(node.this, exp.Column):
            missing = node.this.copy().is_(exp.null())
            yield exp.paren(exp.Or(this=node.copy(), expression=missing))

    yield from _each(tree, (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Like), known)

    def only_known(select: Any) -> bool:
        column = next((e.find(exp.Column) for e in select.expressions if e.find(exp.Column)), None)
        if column is None:
            return False
        select.where(exp.not_(column.copy().is_(exp.null())), copy=False)
        return True

    yield from _set(tree, exp.Select, only_known)

    def filled(node: Any) -> Iterator[Any]:
        inner = node.this
        if isinstance(inner, exp.Column):
            yield type(node)(
                this=exp.Coalesce(this=inner.copy(), expressions=[exp.Literal.number(0)])
            )

    yield from _each(tree, AGGREGATES, filled)
    yield from _each(tree, exp.Is, lambda node: iter([exp.true()]))


MAKERS = (
    _without_conditions,
    _next_bounds,
    _other_bounds,
    _other_aggregates,
    _other_distinct,
    _other_order,
    _other_joins,
    _other_groups,
    _other_columns,
    _other_nulls,
)
