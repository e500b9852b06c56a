"""An embedded shop for the demo: its tables with rows, what people asked its database (a query log
with the noise that logs have), and its documentation. Made on this machine, the same for everybody.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nanochat.config import Short
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import atomic_write

# Below the base directory: the shop, what `sql build` reads of it, and what it makes.
SHOP = "sql_shop"
SHOP_SOURCES, SHOP_DATA = f"{SHOP}/sources", f"{SHOP}/data.jsonl"
DEFINITIONS = """\
-- What the shop sells.
create table items (
    id int,
    name text,
    kind text,
    color text,
    price int
);
create table people (
    id int,
    name text,
    city text,
    country text,
    age int
);
create table sales (
    item int,
    person int,
    number int,
    day date
);
"""
DOCUMENTATION = """\
# The shop
## Prices
Every price in the table items is in whole coins. A price never changes: what gets dearer is a new
item with an id of its own.
## Sales
A row of the table sales is one item that one person has bought on one day; number says how many of
it. Returned items are taken out of the table again.
## People
The table people holds everybody who has ever bought something. The age is that of the first sale.
"""
KINDS = ("book", "ball", "doll", "game", "lamp", "box", "hat", "cup")
COLORS = ("red", "blue", "green", "yellow", "black", "white", "brown")
PLACES = {
    "France": ("Paris", "Lyon"),
    "Italy": ("Rome", "Milan"),
    "Spain": ("Madrid", "Seville"),
    "Germany": ("Berlin", "Bonn"),
    "Austria": ("Vienna", "Graz"),
    "Norway": ("Oslo", "Bergen"),
}
NAMES = "Anna Ben Clara David Emma Finn Grace Henry Ida Jack Kate Leo Mia Noah Olga Paul".split()
YEARS = (2021, 2022, 2023, 2024)
N_ITEMS, N_PEOPLE, N_SALES = 60, 80, 900
# What queries compare and compute: table -> columns of words, columns of numbers.
WORDS = {"items": ("name", "kind", "color"), "people": ("name", "city", "country"), "sales": ()}
NUMBERS = {"items": ("price",), "people": ("age",), "sales": ("number",)}
GROUPS = {"items": ("kind", "color"), "people": ("city", "country"), "sales": ()}
KEYS = {"items": "sales.item = items.id", "people": "sales.person = people.id"}
FUNCTIONS = ("sum", "avg", "max", "min")


@dataclass
class SQLShopConfig:
    """Make the embedded shop: database, definitions, query log and documentation."""

    out: Annotated[str | None, Short("-o")] = None
    """Folder; by default sql_shop in the base directory."""
    queries: int = 12_000
    """Queries of people in the log; what programs and mistakes add comes on top."""
    seed: int = 0
    """Decides everything that is made."""

    def problems(self) -> list[str]:
        if self.queries >= 1:
            return []
        return [f"--queries={self.queries}: must be 1 or more"]


def sql_shop(cfg: SQLShopConfig) -> Path:
    """Write the shop and return its folder."""
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    folder = expanded(cfg.out) if cfg.out else base_dir() / SHOP
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    make_database(folder / "shop.db", cfg.seed)
    atomic_write(sources / "tables.sql", DEFINITIONS)
    atomic_write(sources / "manual.md", DOCUMENTATION)
    log = "".join(json.dumps(row) + "\n" for row in log_rows(cfg.queries, cfg.seed))
    atomic_write(sources / "query_log.jsonl", log)
    print(f"{folder}: shop.db, and in sources/ a log of {cfg.queries:,} queries and its noise")
    return folder


def make_database(path: Path, seed: int) -> None:
    """The shop as an SQLite file; an earlier one is replaced."""
    rng = random.Random(f"{seed}:rows")
    people = []
    for number in range(1, N_PEOPLE + 1):
        country = rng.choice(list(PLACES))
        city = rng.choice(PLACES[country])
        people.append((number, rng.choice(NAMES), city, country, rng.randrange(18, 80)))
    items = []
    for number in range(1, N_ITEMS + 1):
        kind, color = rng.choice(KINDS), rng.choice(COLORS)
        items.append((number, f"{color} {kind}", kind, color, rng.randrange(1, 100)))
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.executescript(DEFINITIONS)
        database.executemany("insert into people values (?, ?, ?, ?, ?)", people)
        database.executemany("insert into items values (?, ?, ?, ?, ?)", items)
        database.executemany(
            "insert into sales values (?, ?, ?, ?)", [_sale(rng) for _ in range(N_SALES)]
        )
    database.close()


def _sale(rng: random.Random) -> tuple[int, int, int, str]:
    item, person = rng.randrange(1, N_ITEMS + 1), rng.randrange(1, N_PEOPLE + 1)
    return item, person, rng.randrange(1, 6), _day(rng)


def _day(rng: random.Random) -> str:
    return f"{rng.choice(YEARS)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"


def log_rows(n_queries: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of the log, as a table of queries exports them: people's queries, and among them
    health checks, mistakes, writes and repetitions.
    """
    rng = random.Random(f"{seed}:log")
    for number in range(n_queries):
        query = made_query(rng)
        yield _row(number, query)
        chance = rng.random()
        if chance < 0.04:
            yield _row(number, "select 1")
        elif chance < 0.06:
            yield _row(number, query.replace("select", "selct", 1))
        elif chance < 0.08:
            yield _row(
                number, f"insert into sales values ({rng.randrange(60)}, 2, 1, '2024-01-02')"
            )
        elif chance < 0.10:
            yield _row(number, "select name from sqlite_master")
        elif chance < 0.15:
            yield _row(number, query)


def _row(number: int, query: str) -> dict[str, Any]:
    return {"id": number, "database": "shop", "query": query}


def made_query(rng: random.Random) -> str:
    """One query of the kinds that people ask a shop."""
    kinds: Sequence[tuple[Callable[[random.Random], str], int]] = (
        (_counted, 3),
        (_computed, 4),
        (_listed, 6),
        (_grouped, 5),
        (_different, 1),
        (_joined, 5),
    )
    make = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
    return make(rng)


def _condition(rng: random.Random, table: str, prefix: str = "") -> str:
    """A comparison of one column."""
    words, numbers = WORDS[table], NUMBERS[table]
    column = rng.choice((*words, *numbers, *(("day",) if table == "sales" else ())))
    if column == "day":
        return f"{prefix}day {rng.choice('<>')} '{_day(rng)}'"
    if column in numbers:
        number = rng.randrange(1, 6) if column == "number" else rng.randrange(10, 90)
        return f"{prefix}{column} {rng.choice(('>', '<', '='))} {number}"
    return f"{prefix}{column} = '{_word(rng, table, column)}'"


def _word(rng: random.Random, table: str, column: str) -> str:
    country = rng.choice(list(PLACES))
    known = {
        "kind": rng.choice(KINDS),
        "color": rng.choice(COLORS),
        "country": country,
        "city": rng.choice(PLACES[country]),
        "name": rng.choice(NAMES),
    }
    if table == "items" and column == "name":
        return f"{known['color']} {known['kind']}"
    return known[column]


def _where(rng: random.Random, table: str, most: int = 2, prefix: str = "") -> str:
    """No condition, one or two; never the same column twice."""
    wanted = rng.choices(range(most + 1), (3, 5, 2)[: most + 1])[0]
    found: dict[str, str] = {}
    for _ in range(wanted):
        condition = _condition(rng, table, prefix)
        found.setdefault(condition.split()[0], condition)
    return f" where {' and '.join(found.values())}" if found else ""


def _table(rng: random.Random) -> str:
    return rng.choice(("items", "people", "sales"))


def _counted(rng: random.Random) -> str:
    table = _table(rng)
    return f"select count(*) from {table}{_where(rng, table)}"


def _computed(rng: random.Random) -> str:
    table = _table(rng)
    call = f"{rng.choice(FUNCTIONS)}({rng.choice(NUMBERS[table])})"
    return f"select {call} from {table}{_where(rng, table)}"


def _listed(rng: random.Random) -> str:
    table = rng.choice(("items", "people"))
    columns = (*WORDS[table], *NUMBERS[table])
    chosen = rng.sample(columns, rng.choice((1, 2)))
    query = f"select {', '.join(chosen)} from {table}{_where(rng, table)}"
    if rng.random() < 0.5:
        query += f" order by {rng.choice(columns)}{rng.choice(('', ' desc'))}"
        if rng.random() < 0.6:
            query += f" limit {rng.randrange(1, 10)}"
    return query


def _grouped(rng: random.Random) -> str:
    table = rng.choice(("items", "people"))
    by = rng.choice(GROUPS[table])
    call = rng.choice(("count(*)", f"{rng.choice(FUNCTIONS)}({rng.choice(NUMBERS[table])})"))
    query = f"select {by}, {call} from {table}{_where(rng, table, 1)} group by {by}"
    chance = rng.random()
    if chance < 0.2:
        query += f" having count(*) > {rng.randrange(1, 9)}"
    elif chance < 0.5:
        query += f" order by {call}{rng.choice(('', ' desc'))}"
    return query


def _different(rng: random.Random) -> str:
    table = rng.choice(("items", "people"))
    return f"select distinct {rng.choice(WORDS[table])} from {table}{_where(rng, table, 1)}"


def _joined(rng: random.Random) -> str:
    table = rng.choice(("items", "people"))
    start = f"from sales join {table} on {KEYS[table]}"
    call = rng.choice(("count(*)", f"{rng.choice(FUNCTIONS)}(sales.number)"))
    if rng.random() < 0.5:
        return f"select {call} {start} where {_condition(rng, table, f'{table}.')}"
    by = f"{table}.{rng.choice(GROUPS[table])}"
    where = f" where {_condition(rng, 'sales', 'sales.')}" if rng.random() < 0.4 else ""
    return f"select {by}, {call} {start}{where} group by {by}"
