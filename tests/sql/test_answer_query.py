"""The query in an answer, and whether it only reads."""

from __future__ import annotations

import pytest

from nanochat.sql.answer_query import answer_query
from nanochat.sql.reading_gate import QueryRefused, reading_query

QUERY = "SELECT city FROM shops WHERE name = 'a;b'"


@pytest.mark.parametrize(
    "answer",
    [
        QUERY,
        f"{QUERY};",
        f"{QUERY};\n\nThis lists the cities.",
        f"Sure, here is the query:\n\n{QUERY};",
        f"```sql\n{QUERY}\n```\nIt selects with care.",
        f"Select the right one:\r\n```\r\n{QUERY};\r\n```",
        f"> {QUERY}",
        f"{QUERY}<|assistant_end|>",
        f"With pleasure. You can use {QUERY};",
        f"```sql\n{QUERY}",  # cut off
    ],
)
def test_the_query_is_found(answer):
    assert answer_query(answer).rstrip(";") == QUERY


@pytest.mark.parametrize("answer", ["", "I do not know.", "With pleasure.", "Please select one."])
def test_prose_has_none(answer):
    assert answer_query(answer) == ""


def test_what_follows_at_once_stays():
    assert answer_query("SELECT 1; DROP TABLE a") == "SELECT 1; DROP TABLE a"
    assert answer_query("DROP TABLE a;") == "DROP TABLE a;"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("DROP TABLE shops", "DROP"),
        ("/* SELECT */ DROP TABLE shops", "DROP"),
        ("ATTACH DATABASE '/tmp/a.db' AS a", "ATTACH"),
        ("COPY shops TO '/tmp/a.csv'", "COPY"),
        ("PRAGMA writable_schema = 1", "PRAGMA"),
        ("INSERT INTO shops VALUES (1)", "INSERT"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT * FROM file('/etc/passwd')", "file()"),
        ("SELECT * FROM url ('http://a')", "url()"),
        ("SELECT * FROM read_csv('/etc/passwd')", "read_csv()"),
        ("SELECT * FROM '/etc/passwd'", "reading a file"),
        ("SELECT load_extension('a.so')", "load_extension()"),
        ("SELECT * INTO other FROM shops", "INTO"),
        ("WITH d AS (DELETE FROM shops RETURNING *) SELECT * FROM d", "DELETE"),
        ("SELECT pg_sleep(100)", "pg_sleep()"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("SELECT 1 INTO OUTFILE '/tmp/a'", "INTO OUTFILE"),
        ("SELECT * FROM pragma_table_info('shops')", "pragma_table_info()"),
        ("SELECT * FROM query('DROP TABLE shops')", "query()"),
        ("SELECT 1; -- then\nDROP TABLE shops", "2 statements"),
    ],
)
@pytest.mark.parametrize("dialect", ["postgres", "duckdb"])
def test_what_does_more_than_reading_is_refused_by_name(query, told, dialect):
    with pytest.raises(QueryRefused, match=told.replace("(", r"\(").replace(")", r"\)")):
        reading_query(query, dialect)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'DROP TABLE a; file(' AS told",
        "WITH a AS (SELECT 1 AS n) SELECT n FROM a",
        "SELECT 1 UNION ALL SELECT 2",
        "-- all of them\nSELECT * FROM shops",
        "SELECT 1; -- that is all",
        "SELECT 1 -- ; DROP TABLE shops",
        "(SELECT 1)",
    ],
)
def test_queries_pass(query):
    for dialect in ("sqlite", "duckdb", "postgres"):
        if query != "(SELECT 1)":
            assert reading_query(query, dialect) is not None


def test_the_dialect_decides():
    with pytest.raises(ValueError, match="cannot be parsed as clickhouse"):
        reading_query("SELECT TOP 10 a FROM b", "clickhouse")


def test_columns_may_be_named_like_words_of_the_language():
    assert reading_query("SELECT for FROM games WHERE for = 4", "sqlite", frozenset({"for"}))
