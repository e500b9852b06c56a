"""What a query does with the columns it names: which it compares with what, which it joins, groups
and orders by. Fillings are made from this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat.sql.created_tables import KeyedTable, kind_of
from nanochat.sql.dialect_parser import exp

Place = tuple[int, str]  # (which reading of a table in the query, column in lower case)
Key = tuple[str, str]  # (table, column), in lower case
COMPARISONS = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.Like: "like",
    exp.ILike: "like",
}
MIRRORED = {">": "<", "<": ">", ">=": "<=", "<=": ">="}
NUMERIC_AGGREGATES = (exp.Sum, exp.Avg)
TRANSPARENT = (exp.Lower, exp.Upper, exp.Trim, exp.Cast, exp.Coalesce, exp.Paren, exp.Neg)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A comparison of a column with literals. op: = <> > >= < <= like in between null; `inside`: of
    a function of the column, such as its year.
    """

    place: Place
    op: str
    values: tuple[Any, ...]
    inside: bool = False


@dataclass(kw_only=True)
class QueryUse:
    """tables: the table that each reading is of. joined: pairs of places that are equal in the rows
    that count. alike: columns whose values are of one kind and range. aggregated: what sums and
    averages of a column are compared with.
    """

    tables: list[KeyedTable] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    joined: list[tuple[Place, Place]] = field(default_factory=list)
    alike: list[tuple[Key, Key]] = field(default_factory=list)
    numeric: set[Key] = field(default_factory=set)
    aggregated: dict[Key, list[Any]] = field(default_factory=dict)
    grouped: set[Key] = field(default_factory=set)
    ordered: set[Key] = field(default_factory=set)
    shown: set[Key] = field(default_factory=set)
    most_rows_asked: int = 0

    def key(self, place: Place) -> Key:
        return self.tables[place[0]].table.name.casefold(), place[1]


def query_use(tree: Any, tables: Sequence[KeyedTable]) -> QueryUse:
    """What `tree` does with the columns of `tables`. Names that it does not find are passed
    over."""
    return _Reader(tree, tables).use


class _Reader:
    def __init__(self, tree: Any, tables: Sequence[KeyedTable]) -> None:
        self.use = QueryUse()
        by_name = {t.table.name.casefold(): t for t in tables}
        by_name |= {t.table.short_name.casefold(): t for t in tables}
        self.named: dict[str, Any] = {}  # names of WITH
        for cte in tree.find_all(exp.CTE):
            self.named[cte.alias_or_name.casefold()] = cte.this
        self.scopes: dict[int, dict[str, Any]] = {}  # SELECT -> alias -> reading or subquery
        for select in tree.find_all(exp.Select):
            self.scopes[id(select)] = {}
        for table in tree.find_all(exp.Table):
            scope = self.scopes.get(id(table.parent_select))
            if scope is None:
                continue
            name = table.name.casefold()
            if name in self.named:
                scope[table.alias_or_name.casefold()] = self.named[name]
            elif name in by_name:
                scope[table.alias_or_name.casefold()] = len(self.use.tables)
                self.use.tables.append(by_name[name])
        for subquery in tree.find_all(exp.Subquery):
            scope = self.scopes.get(id(subquery.parent_select))
            if scope is not None and subquery.alias:
                scope[subquery.alias.casefold()] = subquery.this
        for node in tree.walk():
            self._note(node)

    # --- names

    def place(self, column: Any, within: Any = None) -> Place | None:
        """The reading and column that a name stands for, `within` one SELECT where that is given,
        else also in those around its own.
        """
        select = within or column.parent_select
        name, owner = column.name.casefold(), column.table.casefold()
        while select is not None:
            scope = self.scopes.get(id(select), {})
            for alias, source in scope.items():
                if owner and alias != owner:
                    continue
                found = self._in_source(source, name)
                if found is not None:
                    return found
            select = None if within is not None else select.parent_select
        return None

    def _in_source(self, source: Any, name: str) -> Place | None:
        if isinstance(source, int):
            has = self.use.tables[source].table.column(name)
            return (source, name) if has is not None else None
        for inner in source.find_all(exp.Select):
            for shown in inner.expressions:
                if shown.alias_or_name.casefold() == name:
                    column = shown.unalias()
                    return self.place(column, inner) if isinstance(column, exp.Column) else None
            if inner.find(exp.Star) is not None:
                return self.place(exp.column(name), inner)
            return None
        return None

    def _keys(self, node: Any) -> Iterator[tuple[str, str]]:
        for column in node.find_all(exp.Column):
            place = self.place(column)
            if place is not None:
                yield self.use.key(place)

    # --- uses

    def _note(self, node: Any) -> None:
        use = self.use
        if type(node) in COMPARISONS:
            self._compared(node.this, node.expression, COMPARISONS[type(node)])
        elif isinstance(node, exp.Between):
            values = [literal(node.args["low"]), literal(node.args["high"])]
            self._condition(node.this, "between", values)
        elif isinstance(node, exp.In):
            self._in(node)
        elif isinstance(node, exp.Is):
            self._condition(node.this, "null", [])
        elif isinstance(node, NUMERIC_AGGREGATES):
            use.numeric.update(self._keys(node))
        elif isinstance(node, exp.Group):
            use.grouped.update(self._keys(node))
        elif isinstance(node, exp.Order):
            use.ordered.update(self._keys(node))
        elif isinstance(node, exp.Limit):
            count = literal(node.expression)
            use.most_rows_asked = max(use.most_rows_asked, count if isinstance(count, int) else 0)
        elif isinstance(node, exp.SetOperation):
            self._set_operation(node)
        elif isinstance(node, exp.Join) and node.args.get("using"):
            self._using(node)
        elif isinstance(node, exp.Select):
            for shown in node.expressions:
                use.shown.update(self._keys(shown))

    def _compared(self, left: Any, right: Any, op: str) -> None:
        value = self._literal(right)
        if value is not None:
            self._condition(left, op, [value])
            return
        value = self._literal(left)
        if value is not None:
            self._condition(right, MIRRORED.get(op, op), [value])
            return
        places = [self._inner_place(side) for side in (left, right)]
        if None not in places:
            first, second = places[0], places[1]
            assert first is not None
            assert second is not None
            if op == "=" and isinstance(left, exp.Column) and isinstance(right, exp.Column):
                self.use.joined.append((first, second))
            self.use.alike.append((self.use.key(first), self.use.key(second)))

    def _literal(self, node: Any) -> Any:
        """As `literal`; also text in double quotes, which SQLite takes a name for that no column
        has.
        """
        if isinstance(node, exp.Column) and node.this.args.get("quoted") and not node.table:
            return node.name if self.place(node) is None else None
        return literal(node)

    def _inner_place(self, side: Any) -> Place | None:
        """The column of one side of a comparison, that of a subquery included."""
        column = side if isinstance(side, exp.Column) else side.find(exp.Column)
        return self.place(column) if column is not None else None

    def _condition(self, side: Any, op: str, values: Sequence[Any]) -> None:
        column = side if isinstance(side, exp.Column) else side.find(exp.Column)
        known = [value for value in values if value is not None]
        if column is None or len(known) != len(values) or side.find(exp.Subquery):
            return
        place = self.place(column)
        if place is not None and side.find(exp.AggFunc):
            if not side.find(exp.Count):
                self.use.aggregated.setdefault(self.use.key(place), []).extend(known)
        elif place is not None:
            inside = not isinstance(side, (exp.Column, *TRANSPARENT))
            self.use.conditions.append(
                Condition(place=place, op=op, values=tuple(known), inside=inside)
            )

    def _in(self, node: Any) -> None:
        query = node.args.get("query")
        if query is None:
            values = [self._literal(value) for value in node.expressions]
            columns = [value for value in node.expressions if isinstance(value, exp.Column)]
            if columns and values[0] is None:
                self._compared(node.this, columns[0], "<>")
            else:
                self._condition(node.this, "in", values)
            return
        inner = query.find(exp.Select)
        first = self.place(node.this) if isinstance(node.this, exp.Column) else None
        shown = inner.expressions[0].unalias() if inner is not None and inner.expressions else None
        second = self.place(shown, inner) if isinstance(shown, exp.Column) else None
        if first is not None and second is not None:
            if not isinstance(node.parent, exp.Not):
                self.use.joined.append((first, second))
            self.use.alike.append((self.use.key(first), self.use.key(second)))

    def _using(self, join: Any) -> None:
        for identifier in join.args["using"]:
            name = identifier.name.casefold()
            scope = self.scopes.get(id(join.parent_select), {})
            found = [self._in_source(source, name) for source in scope.values()]
            places = [place for place in found if place is not None]
            self.use.joined += [(places[0], other) for other in places[1:]]

    def _set_operation(self, node: Any) -> None:
        """Columns of both sides are alike; rows of an INTERSECT are in both."""
        sides = [side.find(exp.Select) for side in (node.this, node.expression)]
        if None in sides:
            return
        for left, right in zip(sides[0].expressions, sides[1].expressions, strict=False):
            columns = [left.unalias(), right.unalias()]
            if all(isinstance(column, exp.Column) for column in columns):
                first, second = self.place(columns[0], sides[0]), self.place(columns[1], sides[1])
                if first is not None and second is not None:
                    self.use.alike.append((self.use.key(first), self.use.key(second)))
                    if isinstance(node, exp.Intersect):
                        self.use.joined.append((first, second))


def literal(node: Any) -> Any:
    """The value of a literal: a number, text, a truth value; None for anything else."""
    if isinstance(node, exp.Paren):
        return literal(node.this)
    if isinstance(node, exp.Neg):
        value = literal(node.this)
        return -value if isinstance(value, (int, float)) else None
    if isinstance(node, (exp.Cast, exp.Date, exp.TsOrDsToDate)):
        return literal(node.this)
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, (exp.Add, exp.Sub)):
        first, second = literal(node.this), literal(node.expression)
        if not isinstance(first, (int, float)) or not isinstance(second, (int, float)):
            return None
        return first + second if isinstance(node, exp.Add) else first - second
    if not isinstance(node, exp.Literal):
        return None
    if node.is_string:
        return str(node.this)
    try:
        return int(node.this)
    except ValueError:
        return float(node.this)


def declared_kind(table: KeyedTable, column: str) -> str:
    """The kind of a column by its type alone."""
    known = table.table.column(column)
    return kind_of(known.type) if known is not None else ""
