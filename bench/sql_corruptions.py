"""Do generated fillings tell right queries from wrong ones? Ten deliberate corruptions are applied
to every expected query of a file of questions, and what the fillings catch is counted.

    python -m bench.sql_corruptions FILE.jsonl [--every N] [--show N]

The corruptions are written here, apart from the neighbours by which fillings are chosen
(nanochat/sql/neighbours.py). They are not applied where the query would still mean the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from nanochat.eval.intervals import wilson
from nanochat.sql.created_tables import KeyedTable, created_tables
from nanochat.sql.dialect_parser import exp
from nanochat.sql.testbed import Testbed, make_testbed
from nanochat.tasks.sql_questions import read_questions

Corruption = Callable[[Any, Sequence[KeyedTable]], bool]
OTHER_AGGREGATE = {
    exp.Count: exp.Max,
    exp.Sum: exp.Avg,
    exp.Avg: exp.Sum,
    exp.Min: exp.Max,
    exp.Max: exp.Min,
}
OTHER_BOUND = {exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}


def dropped_where(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    return _removed(tree.find(exp.Where))


def wrong_aggregate(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    for node in tree.find_all(*OTHER_AGGREGATE):
        inner = node.this
        if isinstance(inner, exp.Star):
            continue
        if isinstance(inner, exp.Distinct):
            inner = inner.expressions[0]
        node.replace(OTHER_AGGREGATE[type(node)](this=inner.copy()))
        return True
    return False


def swapped_columns(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    """The first column that is shown and one that is not exchange their places; where all are
    shown, another one of the table is. (The same columns in another order are no mistake.)
    """
    named = {c.name.casefold() for table in tables for c in table.table.columns}
    columns = [c for c in tree.find_all(exp.Column, bfs=False) if c.name.casefold() in named]
    if not columns:
        return False
    first = columns[0]
    shown = {c.name.casefold() for each in tree.selects for c in each.find_all(exp.Column)}
    shown.add(first.name.casefold())
    others = [c.name for c in columns if c.name.casefold() not in shown and c.table == first.table]
    own = first.name
    if not others:
        others = [name for name in _columns_beside(own, tables) if name.casefold() not in shown]
        if not others:
            return False
        first.replace(_named(first, others[0]))
        return True
    other = others[0]
    for column in columns:
        if column.table != first.table or column.find_ancestor(exp.Join):
            continue
        if column.name.casefold() == own.casefold():
            column.replace(_named(column, other))
        elif column.name.casefold() == other.casefold():
            column.replace(_named(column, own))
    return True


def missing_distinct(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    node = tree.find(exp.Distinct)
    limit = tree.args.get("limit")
    if node is None or (limit is not None and limit.expression.name == "1"):
        return False  # the first row is the first different one, too
    if isinstance(node.parent, exp.Select):
        node.parent.set("distinct", None)
    else:
        node.replace(node.expressions[0])
    return True


def other_join(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    """LEFT for INNER and back; where the rows without a partner are dropped later anyway, and where
    tables are joined by WHERE, a join by another column.
    """
    for join in tree.find_all(exp.Join):
        if join.args.get("on") is not None and not _needed_later(tree, join):
            join.set("side", None if join.args.get("side") else "LEFT")
            return True
    for node in tree.find_all(exp.EQ):
        if isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Column):
            names = _columns_beside(node.this.name, tables)
            if names and node.this.table != node.expression.table:
                node.this.replace(_named(node.this, names[0]))
                return True
    return False


def _needed_later(tree: Any, join: Any) -> bool:
    """Whether a condition elsewhere drops the rows that have no partner in the joined table."""
    alias = join.this.alias_or_name.casefold()
    if join.args.get("side"):
        return False
    select = join.parent
    places = [select.args.get("where"), select.args.get("having")]
    places += [other.args.get("on") for other in select.args.get("joins", ()) if other is not join]
    if all(each.find(exp.Sum, exp.Avg, exp.Min, exp.Max) for each in select.expressions):
        places += select.expressions  # which pass over the NULLs of a row without a partner
    return any(
        column.table.casefold() == alias or not column.table
        for place in places
        if place is not None
        for column in place.find_all(exp.Column)
    )


def off_by_one(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    for node in tree.find_all(*OTHER_BOUND):
        kind = OTHER_BOUND[type(node)]
        node.replace(kind(this=node.this.copy(), expression=node.expression.copy()))
        return True
    for node in tree.find_all(exp.Between):
        high = node.args["high"]
        if isinstance(high, exp.Literal) and not high.is_string:
            node.set("high", exp.Literal.number(float(high.this) - 1))
            return True
    return False


def wrong_direction(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    node = tree.find(exp.Ordered)
    fixed = {
        equal.this.name
        for equal in tree.find_all(exp.EQ)
        if not equal.find(exp.Subquery) and not equal.expression.args.get("table")
    }
    if node is None or node.this.name in fixed:
        return False  # all rows are alike there
    node.set("desc", not node.args.get("desc"))
    return True


def missing_limit(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    return _removed(tree.find(exp.Limit))


def null_handling(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    """NULL taken for known: COUNT(*) for COUNT(column), `IS NOT NULL` left out, a comparison that
    NULL passes.
    """
    for node in tree.find_all(exp.Count):
        if isinstance(node.this, exp.Column):
            node.set("this", exp.Star())
            return True
    for node in tree.find_all(exp.Is):
        (node.parent if isinstance(node.parent, exp.Not) else node).replace(exp.true())
        return True
    where = tree.find(exp.Where)
    for node in where.find_all(exp.EQ, exp.NEQ, exp.GT, exp.LT, exp.GTE, exp.LTE) if where else ():
        if isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Literal):
            missing = exp.Is(this=node.this.copy(), expression=exp.Null())
            node.replace(exp.paren(exp.Or(this=node.copy(), expression=missing)))
            return True
    return False


def wrong_group(tree: Any, tables: Sequence[KeyedTable]) -> bool:
    group = tree.find(exp.Group)
    column = group.find(exp.Column) if group is not None else None
    if column is None:
        return False
    names = _columns_beside(column.name, tables)
    if not names:
        return False
    column.replace(_named(column, names[0]))
    return True


CORRUPTIONS: dict[str, Corruption] = {
    "dropped WHERE": dropped_where,
    "wrong aggregate": wrong_aggregate,
    "swapped columns": swapped_columns,
    "missing DISTINCT": missing_distinct,
    "other JOIN": other_join,
    "off-by-one bound": off_by_one,
    "wrong ORDER direction": wrong_direction,
    "missing LIMIT": missing_limit,
    "NULL handling": null_handling,
    "wrong GROUP BY": wrong_group,
}


def _removed(node: Any) -> bool:
    if node is None:
        return False
    node.pop()
    return True


def _named(column: Any, name: str) -> Any:
    return exp.column(exp.to_identifier(name, quoted=True), table=column.table or None)


def _columns_beside(name: str, tables: Sequence[KeyedTable]) -> list[str]:
    """The other columns of the tables that have one of this name, those of its own first."""
    return [
        column.name
        for table in tables
        if table.table.column(name) is not None
        for column in table.table.columns
        if column.name.casefold() != name.casefold()
    ]


def caught(bed: Testbed, corrupt: Corruption) -> tuple[str, bool] | None:
    """The corrupted query and whether it was caught; None where it cannot be applied."""
    tree = bed.tree.copy()
    tables = created_tables(bed.facts.schema, bed.facts.dialect)
    if not corrupt(tree, tables):
        return None
    text = tree.sql(dialect=bed.facts.dialect, comments=False)
    if text == bed.tree.sql(dialect=bed.facts.dialect, comments=False):
        return None
    try:
        return text, not bed.matches(bed.run(text))
    except ValueError:
        return text, True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--every", type=int, default=1, help="only every Nth question")
    parser.add_argument("--show", type=int, default=3, help="uncaught queries to show of each kind")
    asked = parser.parse_args()
    started = time.process_time()
    counts = {name: [0, 0] for name in CORRUPTIONS}
    missed: dict[str, list[str]] = {name: [] for name in CORRUPTIONS}
    gold = [0, 0]
    n_fillings = 0
    for question in read_questions(asked.file)[:: asked.every]:
        bed = make_testbed(question.facts)
        n_fillings += len(bed.fillings)
        gold[0] += 1
        gold[1] += bed.matches(bed.run(question.facts.query))
        for name, corrupt in CORRUPTIONS.items():
            found = caught(bed, corrupt)
            if found is not None:
                counts[name][0] += 1
                counts[name][1] += found[1]
                if not found[1]:
                    missed[name].append(f"{question.facts.query}\n      as {found[0]}")
    print("| corruption | applied | caught | share | 95% interval |\n|---|---|---|---|---|")
    for name, (n, n_caught) in {"(none: the expected query)": gold, **counts}.items():
        told = n - n_caught if name.startswith("(") else n_caught
        low, high = wilson(told, n) if n else (0.0, 0.0)
        share = f"{told / n:.3f}" if n else "-"
        print(f"| {name} | {n} | {told} | {share} | {low:.3f} to {high:.3f} |")
    print(f"{n_fillings / gold[0]:.1f} fillings a question, {time.process_time() - started:.0f} s")
    for name, queries in missed.items():
        for query in queries[: asked.show]:
            print(f"not caught, {name}: {query}")


if __name__ == "__main__":
    main()
