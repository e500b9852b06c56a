"""How a question about a database is put to a model: the same messages in training rows, in
evaluation and in chat.

A row of a file that `nanochat sql build` writes:

    {"messages": [{"role": "system", "content": system_text(...)},
                  {"role": "user", "content": question},
                  {"role": "assistant", "content": "SELECT ..."}],
     "sql": {"dialect": "clickhouse", "query": "SELECT ...", "schema": "CREATE TABLE ...",
             "tables": ["orders"], "shape": "3f9a...", "source": "log.jsonl:17",
             "order_matters": false}}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DIALECTS = ("clickhouse", "bigquery", "postgres", "duckdb", "sqlite")  # as sqlglot names them


@dataclass(frozen=True, kw_only=True)
class SQLFacts:
    """What a row knows about its query, under the key `sql`.

    query: what is expected. schema: the `CREATE TABLE` statements of the system message. tables:
    those that the query reads. shape: a hash that all queries share which differ in literals only.
    source: `file:place` that the query comes from. order_matters: whether the rows are asked for in
    an order.
    """

    dialect: str
    query: str
    schema: str
    tables: tuple[str, ...]
    shape: str
    source: str
    order_matters: bool = False


def system_text(schema: str, dialect: str, knowledge: Sequence[str] = ()) -> str:
    """What stands before the question: the dialect, whatever of the documentation fits it, the
    tables.
    """
    return "\n".join([f"Answer with one {dialect} query.", *knowledge, schema])


def question_messages(
    question: str, schema: str, dialect: str, knowledge: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The messages that ask a question; the answer is one query."""
    return [
        {"role": "system", "content": system_text(schema, dialect, knowledge)},
        {"role": "user", "content": question},
    ]


def training_row(question: str, facts: SQLFacts, knowledge: Sequence[str] = ()) -> dict[str, Any]:
    """A question and its query as a row of a conversations file."""
    asked = question_messages(question, facts.schema, facts.dialect, knowledge)
    answer = {"role": "assistant", "content": facts.query}
    return {"messages": [*asked, answer], "sql": {**asdict(facts), "tables": list(facts.tables)}}


def facts_of(row: dict[str, Any]) -> SQLFacts | None:
    """The facts of a row that has them; None for other conversations. ValueError naming the field
    that is missing or wrong.
    """
    told = row.get("sql")
    if told is None:
        return None
    if not isinstance(told, dict):
        raise ValueError('"sql" must be an object with dialect, query, schema, tables and shape')
    texts = {}
    for name in ("dialect", "query", "schema", "shape", "source"):
        value = told.get(name, "" if name in ("shape", "source", "schema") else None)
        if not isinstance(value, str):
            raise ValueError(f'"sql": its "{name}" must be text, got {value!r:.60}')
        texts[name] = value
    tables = told.get("tables", [])
    if not isinstance(tables, list) or not all(isinstance(name, str) for name in tables):
        raise ValueError(f'"sql": its "tables" must be a list of names, got {tables!r:.60}')
    return SQLFacts(
        **texts, tables=tuple(tables), order_matters=bool(told.get("order_matters", False))
    )
