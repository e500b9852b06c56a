"""A question's testbed: the expected query, and the fillings on which an answer must give the same
results as it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nanochat.sql.created_tables import created_tables
from nanochat.sql.databases import QueryResult, engine_for, for_engine, open_filling, result_of
from nanochat.sql.dialect_parser import exp
from nanochat.sql.fillings import Filling, FillingMaker
from nanochat.sql.match import same_result
from nanochat.sql.neighbours import neighbours
from nanochat.sql.prompt import SQLFacts
from nanochat.sql.query_shape import order_matters
from nanochat.sql.query_use import query_use
from nanochat.sql.reading_gate import reading_query

TRIES = {"sqlite": 28, "duckdb": 10}  # fillings looked at; DuckDB takes longer to make one
MOST_FILLINGS, FEWEST_FILLINGS = 8, 2
NEIGHBOUR_TIMEOUT_S, TIMEOUT_S = 0.1, 2.0
MAX_ROWS = 5000


@dataclass(frozen=True, kw_only=True)
class Testbed:
    """tree: of the expected query. expected: its result on each filling. survivors: queries beside
    it that no filling tells from it; most of those mean the same.
    """

    facts: SQLFacts
    tree: Any
    engine: str
    fillings: tuple[Filling, ...]
    expected: tuple[QueryResult, ...]
    order_matters: bool
    columns: frozenset[str]
    neighbours: int
    survivors: tuple[str, ...]

    def engine_text(self, query: str) -> str:
        """A query of the question's dialect as the engine runs it. ValueError where it may not run,
        or the dialect does not understand it.
        """
        tree = reading_query(query, self.facts.dialect, self.columns)
        return for_engine(query, tree, self.facts.dialect, self.engine)

    def matches(self, found: Sequence[QueryResult]) -> bool:
        """Whether results, one for each filling, are the expected ones."""
        return all(
            theirs.ok and same_result(ours.rows, theirs.rows, self.order_matters)
            for ours, theirs in zip(self.expected, found, strict=True)
        )

    def run(self, query: str) -> list[QueryResult]:
        """The results of a trusted query on every filling, in this process."""
        text = self.engine_text(query)
        found = []
        for filling in self.fillings:
            database = open_filling(filling, self.engine)
            found.append(result_of(database.run(text, MAX_ROWS, TIMEOUT_S)))
            database.close()
        return found


def make_testbed(facts: SQLFacts) -> Testbed:
    """Fillings for a question, found by trying: those are kept that tell the expected query from a
    query beside it. ValueError where the expected query cannot be run on any.
    """
    tables = created_tables(facts.schema, facts.dialect)
    columns = frozenset(c.name.casefold() for t in tables for c in t.table.columns)
    tree = reading_query(facts.query, facts.dialect, columns)
    engine = engine_for(facts.dialect)
    text = for_engine(facts.query, tree, facts.dialect, engine)
    seed = hashlib.sha256(f"{facts.schema}\0{facts.query}".encode()).hexdigest()
    maker = FillingMaker(tables, query_use(tree, tables))
    read = [t for t in tables if any(t is u for u in maker.use.tables)]
    beside = _engine_neighbours(tree, read, facts.dialect, engine, seed)
    search = _Search(text, beside, engine, order_matters(tree))
    for number in range(TRIES[engine]):
        search.look_at(maker.make(f"{seed}:{number}"), random.Random(f"{seed}:{number}:order"))
        if search.done():
            break
    if not search.kept:
        raise ValueError(f"the expected query does not run: {search.trouble}")
    fillings, expected = zip(*search.kept, strict=True)
    return Testbed(
        facts=facts,
        tree=tree,
        engine=engine,
        fillings=fillings,
        expected=expected,
        order_matters=search.in_order,
        columns=columns,
        neighbours=len(beside),
        survivors=tuple(search.alive),
    )


def _engine_neighbours(tree: Any, read: Any, dialect: str, engine: str, seed: str) -> list[str]:
    texts = neighbours(tree, read, dialect, seed)
    if dialect == engine and not any(table.args.get("db") for table in tree.find_all(exp.Table)):
        return texts
    found = []
    for text in texts:
        try:
            found.append(for_engine(text, reading_query(text, dialect), dialect, engine))
        except ValueError:
            continue  # a copy that is no query any more
    return found


class _Search:
    """Looks at one filling after the other and keeps those that tell something new."""

    def __init__(self, text: str, beside: list[str], engine: str, in_order: bool) -> None:
        self.text = text
        self.alive = beside
        self.engine = engine
        self.in_order = in_order
        self.kept: list[tuple[Filling, QueryResult]] = []
        self.trouble = ""

    def done(self) -> bool:
        enough = len(self.kept) >= FEWEST_FILLINGS and not self.alive
        return enough or len(self.kept) >= MOST_FILLINGS

    def look_at(self, filling: Filling, rng: random.Random) -> None:
        database = open_filling(filling, self.engine)
        try:
            expected = result_of(database.run(self.text, MAX_ROWS, TIMEOUT_S))
            if not expected.ok:
                self.trouble = expected.told
                return
            if not self._is_clear(filling, expected, rng):
                return
            alive = [text for text in self.alive if self._agrees(database, text, expected)]
        finally:
            database.close()
        if len(alive) < len(self.alive) or (len(self.kept) < FEWEST_FILLINGS and expected.rows):
            self.kept.append((filling, expected))
            self.alive = alive
        elif not self.kept:
            self.kept.append((filling, expected))

    def _is_clear(self, filling: Filling, expected: QueryResult, rng: random.Random) -> bool:
        """Whether the result is the same when the rows lie in another order: with ties at a LIMIT,
        say, right answers would differ.
        """
        rows = {name: rng.sample(of, len(of)) for name, of in filling.rows.items()}
        database = open_filling(replace(filling, rows=rows), self.engine)
        found = result_of(database.run(self.text, MAX_ROWS, TIMEOUT_S))
        database.close()
        return found.ok and same_result(expected.rows, found.rows, self.in_order, True)

    def _agrees(self, database: Any, text: str, expected: QueryResult) -> bool:
        """Whether a query beside the expected one gives the same. One that fails or takes long is
        told from it at once.
        """
        found = result_of(database.run(text, MAX_ROWS, NEIGHBOUR_TIMEOUT_S))
        return found.ok and same_result(expected.rows, found.rows, self.in_order)
