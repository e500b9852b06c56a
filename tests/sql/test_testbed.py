"""Fillings: rows made for a schema and a query, on which wrong queries show."""

from __future__ import annotations

import pytest

from nanochat.sql.created_tables import created_tables, kind_of
from nanochat.sql.prompt import SQLFacts
from nanochat.sql.testbed import make_testbed

SCHEMA = """CREATE TABLE shops (id INTEGER PRIMARY KEY, city TEXT, opened DATE, area REAL);
CREATE TABLE sales (shop_id INTEGER, item TEXT, amount INTEGER, "for" TEXT);"""


def bed(query, schema=SCHEMA, dialect="sqlite"):
    facts = SQLFacts(dialect=dialect, query=query, schema=schema, tables=(), shape="", source="")
    return make_testbed(facts)


# An expected query, what means the same, and what does not.
CASES = [
    (
        "SELECT city FROM shops WHERE area > 10",
        [
            "SELECT city FROM shops WHERE NOT area <= 10",
            "SELECT s.city FROM shops s WHERE 10 < area",
        ],
        [
            "SELECT city FROM shops",
            "SELECT city FROM shops WHERE area >= 10",
            "SELECT DISTINCT city FROM shops WHERE area > 10",
            "SELECT city FROM shops WHERE area > 10 OR area IS NULL",
            "SELECT city FROM shops WHERE area < 10",
            "SELECT opened FROM shops WHERE area > 10",
        ],
    ),
    (
        "SELECT COUNT(DISTINCT item) FROM sales",
        ["SELECT COUNT(*) FROM (SELECT DISTINCT item FROM sales WHERE item IS NOT NULL)"],
        ["SELECT COUNT(item) FROM sales", "SELECT COUNT(*) FROM sales"],
    ),
    (
        "SELECT city, SUM(amount) FROM shops JOIN sales ON id = shop_id GROUP BY city "
        "HAVING COUNT(*) >= 2 ORDER BY SUM(amount) DESC LIMIT 2",
        [
            "SELECT s.city, SUM(amount) FROM sales AS x, shops AS s WHERE s.id = x.shop_id "
            "GROUP BY s.city HAVING COUNT(*) > 1 ORDER BY 2 DESC LIMIT 2"
        ],
        [
            "SELECT city, SUM(amount) FROM shops JOIN sales ON id = shop_id GROUP BY city "
            "HAVING COUNT(*) >= 2 ORDER BY SUM(amount) LIMIT 2",
            "SELECT city, AVG(amount) FROM shops JOIN sales ON id = shop_id GROUP BY city "
            "HAVING COUNT(*) >= 2 ORDER BY SUM(amount) DESC LIMIT 2",
            "SELECT city, SUM(amount) FROM shops JOIN sales ON id = shop_id GROUP BY city "
            "HAVING COUNT(*) >= 2 ORDER BY SUM(amount) DESC",
            "SELECT city, SUM(amount) FROM shops JOIN sales ON id = shop_id GROUP BY id "
            "HAVING COUNT(*) >= 2 ORDER BY SUM(amount) DESC LIMIT 2",
        ],
    ),
    (
        "SELECT city FROM shops WHERE id NOT IN (SELECT shop_id FROM sales WHERE shop_id > 0)",
        [
            "SELECT city FROM shops WHERE NOT EXISTS (SELECT 1 FROM sales WHERE shop_id = id "
            "AND id > 0)"
        ],
        [
            "SELECT city FROM shops WHERE id IN (SELECT shop_id FROM sales WHERE shop_id > 0)",
            "SELECT city FROM shops",
        ],
    ),
    (
        "SELECT item FROM sales WHERE item LIKE '%tea%' AND amount BETWEEN 3 AND 7",
        ["SELECT item FROM sales WHERE amount >= 3 AND amount <= 7 AND item LIKE '%tea%'"],
        [
            "SELECT item FROM sales WHERE item LIKE 'tea%' AND amount BETWEEN 3 AND 7",
            "SELECT item FROM sales WHERE item = 'tea' AND amount BETWEEN 3 AND 7",
            "SELECT item FROM sales WHERE item LIKE '%tea%' AND amount BETWEEN 3 AND 8",
        ],
    ),
    (
        "SELECT city FROM shops WHERE opened >= '2020-05-01' INTERSECT SELECT city FROM shops "
        "WHERE area = 4",
        [
            "SELECT DISTINCT city FROM shops WHERE opened >= '2020-05-01' AND city IN (SELECT city "
            "FROM shops WHERE area = 4) UNION SELECT NULL FROM shops WHERE 1 = 0"
        ],
        [
            "SELECT city FROM shops WHERE opened >= '2020-05-01' UNION SELECT city FROM shops "
            "WHERE area = 4",
            "SELECT DISTINCT city FROM shops WHERE area = 4",
        ],
    ),
]


@pytest.mark.parametrize(("expected", "same", "wrong"), CASES)
def test_wrong_queries_show_and_right_ones_pass(expected, same, wrong):
    made = bed(expected)
    assert made.matches(made.run(expected))
    assert any(result.rows for result in made.expected)
    for query in wrong:
        assert not made.matches(made.run(query)), query
    nulls = "IS NULL" in expected or "NOT IN" in expected or "INTERSECT" in expected
    for query in same if not nulls else ():
        assert made.matches(made.run(query)), query


def test_the_same_question_gets_the_same_fillings():
    query = CASES[0][0]
    assert [f.rows for f in bed(query).fillings] == [f.rows for f in bed(query).fillings]


def test_declared_keys_are_kept():
    for filling in bed(CASES[2][0]).fillings:
        ids = [row[0] for row in filling.rows["shops"]]
        assert len(set(ids)) == len(ids) and None not in ids


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "clickhouse", "bigquery"])
def test_other_dialects_are_run_by_duckdb(dialect):
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    name = "`shop.shops`" if dialect == "bigquery" else "shop.shops"
    types = {
        "clickhouse": "city Nullable(String), area Float64",
        "bigquery": "city STRING, area FLOAT64",
    }
    schema = f"CREATE TABLE {name} ({types.get(dialect, 'city TEXT, area FLOAT')});"
    final = " FINAL" if dialect == "clickhouse" else ""
    made = bed(f"SELECT city FROM {name}{final} WHERE area > 2", schema, dialect)
    assert made.engine == "duckdb"
    assert made.matches(made.run(f"SELECT city FROM {name} WHERE area > 2"))
    assert not made.matches(made.run(f"SELECT city FROM {name} WHERE area < 2"))


def test_untyped_columns_take_their_kind_from_the_query():
    made = bed("SELECT SUM(a) FROM t WHERE b = 'x'", "CREATE TABLE t (a, b)")
    assert made.fillings[0].kinds == {("t", "a"): "int", ("t", "b"): "text"}


def test_text_in_double_quotes_is_text_where_no_column_has_the_name():
    made = bed('SELECT area FROM shops WHERE city = "Ulm"')
    assert any(result.rows for result in made.expected)


def test_a_name_that_a_derived_table_does_not_have_is_passed_over():
    made = bed(
        "SELECT d.city, d.n FROM (SELECT city, COUNT(*) AS n FROM shops GROUP BY city) AS d "
        "WHERE d.n > 1 AND EXISTS (SELECT 1 FROM sales WHERE item = d.city)"
    )
    assert made.matches(made.run(made.facts.query))


def test_an_expected_query_that_does_not_run_says_so():
    with pytest.raises(ValueError, match="does not run: no such column: absent"):
        bed("SELECT absent FROM shops")


def test_schemas_are_read_back():
    tables = created_tables(SCHEMA + " -- a: note", "sqlite")
    assert [t.table.name for t in tables] == ["shops", "sales"]
    assert tables[0].keys == {"id"} and tables[0].declared
    assert not created_tables("CREATE TABLE orders (order_id int)", "sqlite")[0].declared


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("VARCHAR(20)", "text"),
        ("Nullable(UInt64)", "int"),
        ("LowCardinality(String)", "text"),
        ("Array(Int)", "other"),
        ("TIMESTAMP", "datetime"),
        ("Date", "date"),
        ("number", "real"),
        ("", ""),
    ],
)
def test_types_are_told_apart(told, kind):
    assert kind_of(told) == kind
