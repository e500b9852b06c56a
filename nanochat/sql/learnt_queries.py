"""Which queries of the sources are learnt from, and what is known about each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from nanochat.sql.comments import question_in
from nanochat.sql.definitions import Definitions
from nanochat.sql.dialect_parser import LONGEST_QUERY_CHARS, TokenizedSQL, exp, parse_one, tokenized
from nanochat.sql.query_log import WRITES
from nanochat.sql.query_shape import (
    fingerprint,
    functions_as_tables,
    is_query,
    order_matters,
    shape_of,
    tables_of,
)
from nanochat.sql.stand_ins import SQLRedactor
from nanochat.sql.table_schema import SQLColumn, SQLTable
from nanochat.sql.wording import question_for

# Why a statement is not learnt from, besides what a log says about it.
TOO_LONG = f"queries longer than {LONGEST_QUERY_CHARS:,} characters"
UNPARSED = "queries that cannot be parsed"
SEVERAL = "several statements in one row"
HEALTH = "health checks and the like: no table is read"
SYSTEM = "queries of system tables"
ELSEWHERE = "queries of files, addresses and table functions"
DUPLICATE = "duplicates up to literals"
NO_QUESTION = "queries whose question needs a comment or --base-url"
KEPT = ""

_SYSTEM_SCHEMAS = frozenset("system information_schema pg_catalog performance_schema".split())
_SYSTEM_TABLES = ("sqlite_", "pg_stat", "pg_locks", "duckdb_")
# Where a question comes from.
BESIDE, ENDPOINT, WORDED = "a comment or description", "the endpoint", "the query itself"


@dataclass(kw_only=True)
class LearntQuery:
    """A query that is kept. questions: what it answers, found beside it or made from it; columns:
    those it uses, in lower case; origin: where its questions come from.
    """

    text: str
    dialect: str
    source: str
    shape: str
    tables: list[str]
    columns: frozenset[str]
    order_matters: bool
    questions: list[str]
    origin: str


@dataclass(frozen=True, kw_only=True)
class _Fate:
    """Why statements of one fingerprint are not kept ("" for kept), and their shape."""

    reason: str
    shape: str


class LearntQueries:
    """Takes statements one after the other, and says of each why it is not kept.

    per_shape: queries of one shape to keep, which differ in literals. wordings: questions to make
    of a query. asks: whether an endpoint is going to be asked, so that queries without words are
    kept too.
    """

    def __init__(
        self,
        redactor: SQLRedactor,
        definitions: Definitions,
        *,
        per_shape: int = 1,
        wordings: int = 1,
        asks: bool = False,
        seed: int = 0,
    ) -> None:
        self.kept: list[LearntQuery] = []
        self.redactor = redactor
        self.definitions = definitions
        self.per_shape = per_shape
        self.wordings = wordings
        self.asks = asks
        self.seed = seed
        self.without_question = 0  # kept, but no question came for them
        self.inferred: dict[str, dict[str, str]] = defaultdict(dict)
        self._by_text: dict[int, _Fate] = {}
        self._by_fingerprint: dict[str, _Fate] = {}
        self._per_shape: dict[str, int] = defaultdict(int)

    def add(self, text: str, dialect: str, source: str, question: str = "") -> str:
        """Keep a statement, or return why not. Statements that differ in literals only share their
        fate.
        """
        if len(text) > LONGEST_QUERY_CHARS:
            return TOO_LONG
        exact = hash((dialect, text))
        if exact in self._by_text:
            return self._by_text[exact].reason or DUPLICATE
        try:
            statement = tokenized(text, dialect)
        except ValueError:
            return UNPARSED
        key = fingerprint(statement)
        fate = self._by_fingerprint.get(key)
        if fate is None or self._again(fate, question, statement):
            reason, shape = self._take(statement, dialect, source, question)
            fate = _Fate(reason="" if reason == DUPLICATE else reason, shape=shape)
            self._by_fingerprint[key] = fate
        else:
            reason = fate.reason or DUPLICATE
        self._by_text[exact] = fate
        return reason

    def _again(self, fate: _Fate, question: str, statement: TokenizedSQL) -> bool:
        """Whether a statement like an earlier one may fare better than that one."""
        if fate.reason == NO_QUESTION:
            return bool(question or statement.comments)
        return not fate.reason and self._per_shape[fate.shape] < self.per_shape

    def _take(
        self, statement: TokenizedSQL, dialect: str, source: str, question: str
    ) -> tuple[str, str]:
        text = self.redactor.query(statement)
        try:
            tree = parse_one(text, dialect)
        except ValueError as error:
            return SEVERAL if "statements in one" in str(error) else UNPARSED, ""
        tables = tables_of(tree)
        if reason := _unwanted(tree, tables):
            return reason, ""
        shape = shape_of(tree, dialect)
        if self._per_shape[shape] >= self.per_shape:
            return DUPLICATE, shape
        asked = question or question_in(statement.comments)
        questions, origin = [self.redactor.text(asked)] if asked else [], BESIDE
        if not questions:
            questions, origin = self._worded(tree, text), WORDED
        if not questions and not self.asks:
            return NO_QUESTION, shape
        self._per_shape[shape] += 1
        self.kept.append(
            LearntQuery(
                text=text,
                dialect=dialect,
                source=self.redactor.text(source),
                shape=shape,
                tables=tables,
                columns=self._columns(tree),
                order_matters=order_matters(tree),
                questions=questions,
                origin=origin,
            )
        )
        return KEPT, shape

    def _worded(self, tree: Any, text: str) -> list[str]:
        made = [
            question_for(tree, self.definitions.find, f"{self.seed}:{number}:{text}")
            for number in range(self.wordings)
        ]
        return list(dict.fromkeys(filter(None, made)))

    def _columns(self, tree: Any) -> frozenset[str]:
        """The columns that a query uses; those whose table is sure are noted as the table's."""
        found = set()
        for select in tree.find_all(exp.Select):
            owners = _owners(select)
            made = {p.alias.casefold() for p in select.expressions if isinstance(p, exp.Alias)}
            for column in select.find_all(exp.Column):
                if column.parent_select is not select or isinstance(column.this, exp.Star):
                    continue
                found.add(column.name.casefold())
                owner = owners.get(column.table.casefold()) if column.table else None
                if not column.table and len(owners) == 1 and column.name.casefold() not in made:
                    owner = next(iter(owners.values()))
                if owner:
                    self.inferred[owner.casefold()].setdefault(column.name.casefold(), column.name)
        return frozenset(found)

    def write_questions(self, questions: list[str]) -> None:
        """Give the queries that have nothing beside them these questions, in their order; where
        one is empty the words made from the query stay, and a query without any is dropped.
        """
        asked = iter(questions)
        for query in self.to_ask():
            if text := next(asked):
                query.questions = [self.redactor.text(text)]
                query.origin = ENDPOINT
        answered = [query for query in self.kept if query.questions]
        self.without_question = len(self.kept) - len(answered)
        self.kept = answered

    def to_ask(self) -> list[LearntQuery]:
        """The queries that have no question beside them."""
        return [query for query in self.kept if query.origin != BESIDE]

    def add_inferred(self) -> int:
        """Add to the definitions what the queries show of tables and columns that none defines ->
        number of tables that are known from queries alone.
        """
        alone = 0
        for query in self.kept:
            for name in query.tables:
                if self.definitions.find(name) is None:
                    alone += 1
                    self.definitions.add(SQLTable(name=name))
                names = self.inferred.get(name.casefold(), {}).values()
                table = self.definitions.find(name)
                assert table is not None
                missing = [SQLColumn(name=n) for n in names if table.column(n) is None]
                if missing:
                    self.definitions.add(SQLTable(name=table.name, columns=tuple(missing)))
        return alone


def _unwanted(tree: Any, tables: list[str]) -> str:
    """Why a parsed statement is not learnt from; "" for one that is."""
    if not is_query(tree):
        return WRITES
    if functions_as_tables(tree) or any("/" in name or "*" in name for name in tables):
        return ELSEWHERE
    if not tables:
        return HEALTH
    return SYSTEM if all(map(_is_system, tables)) else ""


def _is_system(name: str) -> bool:
    parts = name.casefold().split(".")
    return bool(_SYSTEM_SCHEMAS & set(parts)) or parts[-1].startswith(_SYSTEM_TABLES)


def _owners(select: Any) -> dict[str, str]:
    """Alias -> table of the tables that one SELECT reads itself; "" for what is none."""
    start = select.args.get("from_")
    sources = [start.this] if start is not None else []
    sources += [join.this for join in select.args.get("joins") or []]
    named = {cte.alias_or_name.casefold() for cte in select.root().find_all(exp.CTE)}
    owners = {}
    for source in sources:
        source = source.this if isinstance(source, exp.Final) else source
        is_table = isinstance(source, exp.Table) and source.name.casefold() not in named
        name = ".".join(part.name for part in source.parts) if is_table else ""
        owners[source.alias_or_name.casefold()] = name
    return owners
