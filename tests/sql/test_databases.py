"""Databases of people: opened by URL, only read, within limits."""

from __future__ import annotations

import sqlite3

import pytest
from postgres_server import NoPostgres, postgres

from nanochat.sql.databases import ClickHouseDatabase, open_database, without_password
from nanochat.sql.query_run import DuckDatabase, SQLiteDatabase

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"
TEN_MILLION = (
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10000000) "
    "SELECT n FROM r"
)
FORBIDDEN = (
    "DROP TABLE shops",
    "INSERT INTO shops VALUES (9, 'x')",
    "ATTACH DATABASE '{folder}/other.db' AS other",
    "PRAGMA user_version = 4",
    "VACUUM INTO '{folder}/other.db'",
)


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE shops (id INTEGER, city TEXT)")
        connection.executemany("INSERT INTO shops VALUES (?, ?)", [(1, "Ulm"), (2, "Rome")])
    connection.close()
    return path


def test_a_file_is_known_by_what_it_holds(shop, tmp_path):
    for where in (str(shop), f"sqlite:///{shop}"):
        database = open_database(where)
        result = database.run("SELECT city FROM shops ORDER BY id")
        assert result.ok and result.columns == ("city",) and result.rows == [["Ulm"], ["Rome"]]
        assert "CREATE TABLE shops" in database.schema()
        database.close()
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(ValueError, match="neither an SQLite nor a DuckDB file"):
        open_database(str(tmp_path / "text.db"))
    with pytest.raises(ValueError, match="no such database file"):
        open_database("sqlite:///nowhere.db")
    with pytest.raises(ValueError, match="unknown kind mysql"):
        open_database("mysql://me:secret@host/a")


def test_passwords_are_not_shown():
    assert "secret" not in without_password("postgresql://me:secret@host/a")
    with pytest.raises(ValueError) as error:
        open_database("mysql://me:secret@host/a")
    assert "secret" not in str(error.value)


def test_sqlite_is_only_read(shop, tmp_path):
    database = open_database(str(shop))
    for query in FORBIDDEN:
        result = database.run(query.format(folder=tmp_path))
        assert result.end == "refused", (query, result)
    assert not (tmp_path / "other.db").exists()
    assert len(database.run("SELECT * FROM shops").rows) == 2


def test_sqlite_has_limits():
    database = SQLiteDatabase()
    assert database.run(ENDLESS, 100, 0.2)["end"] == "timeout"
    assert database.run(TEN_MILLION, 100, 10)["end"] == "too many rows"
    assert database.run("SELECT zeroblob(2000000000)", 100, 1)["end"] == "error"
    assert database.run("SELECT load_extension('a')", 100, 1)["end"] in ("refused", "error")
    assert database.run("SELECT 1", 100, 1)["rows"] == [[1]]  # still there


def test_duckdb_is_only_read_and_has_limits(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    database = DuckDatabase(
        ["CREATE TABLE shops (id INTEGER)"], [("INSERT INTO shops VALUES (?)", [[1]])]
    )
    (tmp_path / "a.csv").write_text("a\n1\n")
    for query in (
        "DROP TABLE shops",
        f"COPY shops TO '{tmp_path}/b.csv'",
        f"SELECT * FROM read_csv('{tmp_path}/a.csv')",
        f"SELECT * FROM '{tmp_path}/a.csv'",
        "SET threads = 2",
        f"ATTACH '{tmp_path}/c.db'",
    ):
        assert database.run(query, 100, 1)["end"] in ("refused", "error"), query
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv"]
    assert database.run(ENDLESS, 100, 0.3)["end"] in ("timeout", "memory")
    assert database.run(TEN_MILLION, 100, 20)["end"] in ("too many rows", "memory")
    assert database.run("SELECT id FROM shops", 100, 5)["rows"] == [[1]]


def test_postgres_is_only_read_and_has_limits(tmp_path):
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        with postgres() as address:
            with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
                connection.execute("CREATE TABLE shops (id int, city text)")
                connection.execute("INSERT INTO shops VALUES (1, 'Ulm'), (2, 'Rome')")
            database = open_database(f"{address}/postgres")
            assert "CREATE TABLE shops (id integer, city text);" in database.schema()
            result = database.run("SELECT city, 1.5 AS n FROM shops ORDER BY id")
            assert result.columns == ("city", "n") and result.rows == [["Ulm", 1.5], ["Rome", 1.5]]
            for query in (
                "DROP TABLE shops",
                "WITH d AS (DELETE FROM shops RETURNING *) SELECT * FROM d",
                f"COPY shops TO '{tmp_path}/a.csv'",
                "SELECT 1; DROP TABLE shops",
                "COMMIT; DROP TABLE shops",
            ):
                assert database.run(query).end in ("refused", "error"), query
            assert database.run("SELECT pg_sleep(9)", timeout_s=0.3).end == "timeout"
            assert database.run(TEN_MILLION, max_rows=100).end == "too many rows"
            assert database.run("SELECT town FROM shops").end == "error"
            assert len(database.run("SELECT * FROM shops").rows) == 2
            database.close()
    except NoPostgres as absent:
        pytest.skip(str(absent))


def test_clickhouse_is_only_read_and_has_limits(tmp_path):
    pytest.importorskip("chdb", reason="chdb is not installed (the extra [clickhouse])")
    first = ClickHouseDatabase(tmp_path / "house")
    first.execute("CREATE TABLE shops (id Int32, city String) ENGINE = MergeTree ORDER BY id")
    first.execute("INSERT INTO shops VALUES (1, 'Ulm'), (2, 'Rome')")
    assert "CREATE TABLE default.shops" in first.schema()
    result = first.run("SELECT city FROM shops PREWHERE id > 0 ORDER BY id")
    assert result.columns == ("city",) and result.rows == [["Ulm"], ["Rome"]]
    for query in (
        "DROP TABLE shops",
        "INSERT INTO shops VALUES (3, 'x')",
        "SELECT town FROM shops",
    ):
        assert first.run(query).end in ("refused", "error"), query
    assert first.run("SELECT number FROM numbers(10000000)", max_rows=100).end == "too many rows"
    endless = "SELECT sum(cityHash64(number)) FROM numbers(10000000000000)"
    assert first.run(endless, timeout_s=0.5).end == "timeout"
    assert len(first.run("SELECT * FROM shops").rows) == 2
    first.close()
