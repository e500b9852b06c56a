"""The messages that ask for SQL, and the facts that rows keep about their query."""

from __future__ import annotations

import json

import pytest
import sqlglot

from nanochat.dataset.conversations import scan_conversations
from nanochat.sql.prompt import SQLFacts, facts_of, question_messages, training_row
from nanochat.sql.table_schema import SQLColumn, SQLTable, schema_text

ORDERS = SQLTable(
    name="shop.orders",
    description="one row\nan order",
    columns=(
        SQLColumn(name="id", type="INTEGER"),
        SQLColumn(name="order", type="TEXT", description="its number"),
        SQLColumn(name="customer_id", type="INTEGER", references="customers.id"),
    ),
)
FACTS = SQLFacts(
    dialect="sqlite",
    query="SELECT COUNT(*) FROM orders",
    schema="CREATE TABLE orders (id INTEGER);",
    tables=("orders",),
    shape="ab12",
    source="log.jsonl:1",
    order_matters=False,
)


def test_training_and_asking_look_the_same() -> None:
    row = training_row("How many orders?", FACTS)
    assert row["messages"][:-1] == question_messages("How many orders?", FACTS.schema, "sqlite")
    assert row["messages"][-1] == {"role": "assistant", "content": FACTS.query}
    assert facts_of(json.loads(json.dumps(row))) == FACTS


def test_rows_are_conversations_whose_facts_are_used(tmp_path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(training_row("How many orders?", FACTS)) + "\n")
    contents = scan_conversations(file)
    assert not contents.problems
    assert not contents.notes()
    assert contents.sql[0] is not None
    assert contents.sql[0]["shape"] == "ab12"


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb", "postgres", "clickhouse", "bigquery"])
def test_a_schema_is_read_back_by_a_parser(dialect: str) -> None:
    text = schema_text(
        [ORDERS, SQLTable(name="two words", columns=(SQLColumn(name="a b"),))], dialect
    )
    made = sqlglot.parse(text, dialect=dialect)
    assert "-- one row an order; order: its number" in text
    assert "REFERENCES customers(id)" in text
    names = [c.name for c in made[0].find_all(sqlglot.exp.ColumnDef)]
    assert names == ["id", "order", "customer_id"]


@pytest.mark.parametrize("field, value", [("dialect", 3), ("query", None), ("tables", "orders")])
def test_wrong_facts_are_named(field: str, value: object) -> None:
    row = training_row("How many?", FACTS)
    row["sql"][field] = value
    with pytest.raises(ValueError, match=f'"{field}"'):
        facts_of(row)


def test_other_conversations_have_no_facts() -> None:
    assert facts_of({"messages": []}) is None
