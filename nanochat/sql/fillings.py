"""Rows for tables of which only the definitions are known, made so that a wrong query shows
(arXiv 2010.02840): several fillings of which each tells the expected query from some query beside
it.

A filling is made of stories. In a story every table that the query reads gets a row, the rows fit
together as the query joins them, and the values fulfil its conditions: all of them, all but one, or
as it happens. So there are rows that count, and rows that nearly do.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.sql.column_values import ValuePool, holds, value_pool
from nanochat.sql.created_tables import KeyedTable
from nanochat.sql.query_use import Condition, Key, Place, QueryUse, declared_kind

N_STORIES = {0: 6, 1: 14, 2: 12, 3: 10, 4: 8, 5: 7}  # by the readings of tables in the query
FEWEST_STORIES = 6  # with more of them
MOST_STORIES = 40
SPARE_ROWS = 4  # of tables that the query does not read


@dataclass(frozen=True, kw_only=True)
class Filling:
    """The rows of every table of a schema, in the order of its columns. kinds: of the columns."""

    tables: tuple[KeyedTable, ...]
    kinds: dict[Key, str]
    rows: dict[str, list[list[Any]]]


class Groups:
    """Things that belong together, as pairs say."""

    def __init__(self, pairs: Iterable[tuple[Hashable, Hashable]]) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        for first, second in pairs:
            self._parent[self.of(first)] = self.of(second)

    def of(self, thing: Hashable) -> Hashable:
        """The one that stands for the group of `thing`."""
        while thing in self._parent and self._parent[thing] != thing:
            thing = self._parent[thing]
        return thing


class FillingMaker:
    """Fillings for a schema and a query; equal seeds give equal ones."""

    def __init__(self, tables: Sequence[KeyedTable], use: QueryUse) -> None:
        self.tables = tuple(tables)
        self.use = use
        keys = [
            (t.table.name.casefold(), c.name.casefold()) for t in tables for c in t.table.columns
        ]
        self.alike = Groups([*use.alike, *_joined_keys(use), *_same_names(tables)])
        self.kinds = self._kinds(keys)
        self.equal = Groups(use.joined)
        self.conditions: dict[Hashable, list[Condition]] = defaultdict(list)
        for condition in use.conditions:
            self.conditions[self.equal.of(condition.place)].append(condition)

    def _kinds(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Of each column: what its type says, else what the query does with it and with those that
        are like it.
        """
        by_name = {t.table.name.casefold(): t for t in self.tables}
        told: dict[Hashable, str] = {}
        for condition in self.use.conditions:
            number = all(isinstance(v, (int, float)) for v in condition.values)
            if condition.values and not condition.inside:
                guess = "int" if number else "text"
                if number and any(isinstance(v, float) for v in condition.values):
                    guess = "real"
                group = self.alike.of(self.use.key(condition.place))
                told[group] = guess if told.get(group, guess) == guess else "text"
        for key in self.use.numeric:
            if told.setdefault(self.alike.of(key), "int") == "text":
                told[self.alike.of(key)] = "int"
        return {
            key: declared_kind(by_name[key[0]], key[1]) or told.get(self.alike.of(key), "text")
            for key in keys
        }

    def make(self, seed: str) -> Filling:
        rng = random.Random(seed)
        pools = self._pools(rng)
        rows: dict[str, list[dict[str, Any]]] = {t.table.name.casefold(): [] for t in self.tables}
        n_readings = len(self.use.tables)
        n_stories = N_STORIES.get(n_readings, FEWEST_STORIES) + rng.randrange(4)
        asked = self.use.most_rows_asked
        n_stories = min(MOST_STORIES, max(n_stories, 2 * asked + 3 if asked < 20 else 0))
        null_share = rng.choice((0.0, 0.06, 0.15))
        good_share = rng.choice((0.0, 0.35, 0.5, 0.75))
        keyed = rng.random() < 0.7  # whether keys that nothing declares are keys
        for at in range(n_stories):
            for name, row in self._story(at, rng, pools, good_share):
                rows[name].append(row)
            if rng.random() < 0.2:  # somebody's equal
                name = rng.choice(list(rows))
                if rows[name]:
                    rows[name].append(dict(rng.choice(rows[name])))
        for table in self.tables:
            name = table.table.name.casefold()
            wanted = SPARE_ROWS if not rows[name] else 1
            for at in range(wanted):
                rows[name].append(self._row(table, n_stories + at, rng, pools, {}))
        made = {
            t.table.name: _finished(t, rows[t.table.name.casefold()], rng, null_share, keyed)
            for t in self.tables
        }
        return Filling(tables=self.tables, kinds=self.kinds, rows=made)

    def _pools(self, rng: random.Random) -> dict[Key, ValuePool]:
        """Column -> its values; columns that are alike share them."""
        of_group: dict[Hashable, list[Condition]] = defaultdict(list)
        for condition in self.use.conditions:
            of_group[self.alike.of(self.use.key(condition.place))].append(condition)
        pools: dict[tuple[Hashable, str], ValuePool] = {}
        found = {}
        joined = {self.use.key(place) for pair in self.use.joined for place in pair}
        for key, kind in self.kinds.items():
            group = self.alike.of(key)
            if (group, kind) not in pools:
                few = rng.random() < 0.2
                if key in self.use.grouped or key in joined:
                    few = rng.random() < 0.75
                elif key in self.use.ordered or key in self.use.numeric:
                    few = rng.random() < 0.1
                pools[group, kind] = value_pool(kind, of_group[group], few, rng)
                pools[group, kind].near += _parts(self.use.aggregated.get(key, ()), kind)
            found[key] = pools[group, kind]
        return found

    def _story(
        self, at: int, rng: random.Random, pools: dict[Key, ValuePool], good_share: float
    ) -> list[tuple[str, dict[str, Any]]]:
        """A row of each reading of a table, as (table, row)."""
        draw = rng.random()
        mode = "good" if draw < good_share else "near" if draw < 0.9 else "any"
        broken = rng.choice(self.use.conditions) if mode == "near" and self.use.conditions else None
        loose = rng.choice(self.use.joined)[0] if self.use.joined and draw > 0.8 else None
        chosen: dict[Hashable, Any] = {}
        told = []
        for number, table in enumerate(self.use.tables):
            fixed = {}
            for column in table.table.columns:
                place: Place = (number, column.name.casefold())
                group = self.equal.of(place)
                if place == loose or (group == place and group not in self.conditions):
                    continue
                if group not in chosen:
                    pool = pools[self.use.key(place)]
                    chosen[group] = self._value(self.conditions[group], pool, mode, broken, rng, at)
                fixed[place[1]] = chosen[group]
            if not (len(self.use.tables) > 1 and rng.random() < 0.1):
                told.append((table.table.name.casefold(), self._row(table, at, rng, pools, fixed)))
        return told

    def _value(
        self,
        conditions: list[Condition],
        pool: ValuePool,
        mode: str,
        broken: Condition | None,
        rng: random.Random,
        at: int,
    ) -> Any:
        """A value for a column with conditions, which all hold, but for the broken one."""
        if mode == "any":
            return pool.draw(rng, at)
        if broken in conditions and rng.random() < 0.3:
            return None
        values = [*pool.near, *pool.plain]
        right = [v for v in values if all(holds(c, v) != (c is broken) for c in conditions)]
        if not right:  # conditions that exclude each other, one for each branch of an OR
            some = rng.choice(conditions) if conditions else None
            right = [v for v in values if some is None or holds(some, v)]
        close = [v for v in right if v in pool.near]
        if close and rng.random() < 0.7:
            return rng.choice(close)
        return rng.choice(right) if right else pool.draw(rng, at)

    def _row(
        self,
        table: KeyedTable,
        at: int,
        rng: random.Random,
        pools: dict[Key, ValuePool],
        fixed: dict[str, Any],
    ) -> dict[str, Any]:
        name = table.table.name.casefold()
        return {
            key: fixed[key] if key in fixed else pools[name, key].draw(rng, at)
            for key in (column.name.casefold() for column in table.table.columns)
        }


def _finished(
    table: KeyedTable,
    rows: list[dict[str, Any]],
    rng: random.Random,
    null_share: float,
    keyed: bool,
) -> list[list[Any]]:
    """The rows of a table shuffled, with NULLs, no key twice."""
    keys = table.keys if keyed or table.declared else frozenset()
    seen: set[tuple[Any, ...]] = set()
    kept = []
    rng.shuffle(rows)
    for row in rows:
        for name in row:
            if name not in keys and rng.random() < null_share:
                row[name] = None
        key = tuple(row[name] for name in sorted(keys))
        if key and (key in seen or None in key):
            continue
        seen.add(key)
        kept.append(list(row.values()))
    return kept


def _parts(totals: Iterable[Any], kind: str) -> list[Any]:
    """Values whose sums and averages lie around the totals."""
    if kind not in ("int", "real"):
        return []
    numbers = [int(total) for total in totals if isinstance(total, (int, float))]
    return [part for total in numbers for part in (total, total // 2, total + 1, 1, total - 1)]


def _joined_keys(use: QueryUse) -> list[tuple[Key, Key]]:
    return [(use.key(first), use.key(second)) for first, second in use.joined]


def _same_names(tables: Sequence[KeyedTable]) -> list[tuple[Key, Key]]:
    """Columns of one name in several tables, and those that refer to each other: a query that joins
    by them finds something.
    """
    first: dict[str, Key] = {}
    pairs = []
    for table in tables:
        for column in table.table.columns:
            key = (table.table.name.casefold(), column.name.casefold())
            if key[1].endswith(("id", "code", "key")):
                pairs.append((key, first.setdefault(key[1], key)))
            owner, _, name = column.references.casefold().rpartition(".")
            if owner:
                pairs.append((key, (owner, name)))
    return pairs
