"""The embedded shop: every query of its log runs on its rows, and becomes a question."""

from __future__ import annotations

import json
import sqlite3

from nanochat.sql.shop import SQLShopConfig, sql_shop
from nanochat.sql.sql_build import SQLBuildConfig, sql_build


def test_the_shop_from_log_to_questions(base_dir, capsys) -> None:
    folder = sql_shop(SQLShopConfig(queries=250))
    first = (folder / "sources" / "query_log.jsonl").read_bytes()
    out = sql_build(SQLBuildConfig(dialect="sqlite", per_shape=20, test_share=0.2))
    printed = capsys.readouterr().out
    assert "0 shapes on both sides" in printed
    for noise in ("health checks", "cannot be parsed", "write or change", "system tables"):
        assert noise in printed
    test = out.with_suffix(".test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in (*out.read_text().splitlines(), *test)]
    queries = [row["sql"]["query"] for row in rows if "sql" in row]
    assert len(queries) > 80
    assert len(test) > 10
    with sqlite3.connect(folder / "shop.db") as database:
        for query in queries:
            database.execute(query).fetchall()
    database.close()
    sql_shop(SQLShopConfig(queries=250))
    assert (folder / "sources" / "query_log.jsonl").read_bytes() == first
