"""What a folder knows, found by what a question says."""

from __future__ import annotations

import json

import pytest

from nanochat.sql.knowledge import MOST_ENTRIES, KnowledgeIndex
from nanochat.sql.sql_build import SQLBuildConfig, sql_build


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tables.sql").write_text(
        "CREATE TABLE orders (id int, customer_id int); -- one row an order\n"
        "CREATE TABLE stockLevels (item text, amount int);\n"
        "-- revenue by month\nSELECT month, SUM(price) FROM orders GROUP BY month;\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text(
        "\ufeffAbout.\r\n# Refunds\r\nRefunds are negative payments.\r\n## Köln\r\nThe depot.\r\n"
    )
    row = {
        "messages": [
            {"role": "user", "content": "How many customers returned?"},
            {"role": "assistant", "content": "SELECT 1"},
        ],
        "sql": {"query": "SELECT COUNT(*) FROM returns"},
    }
    (tmp_path / "past.jsonl").write_text(json.dumps(row) + "\nnot json\n{}\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path


@pytest.mark.parametrize(
    ("question", "kind", "part"),
    [
        ("Who placed an order?", "table", "CREATE TABLE orders"),
        ("Show the stock levels", "table", "stockLevels"),
        ("what was the monthly revenue", "query", "SUM(price)"),
        ("Was anything refunded?", "page", "negative payments"),
        ("depot in köln", "page", "depot"),
        ("customers who returned", "query", "FROM returns"),
    ],
)
def test_the_best_entry_comes_first(folder, question, kind, part):
    best = KnowledgeIndex(folder).ranked(question)[0]
    assert best.kind == kind and part in best.text


def test_every_piece_is_there(folder):
    entries = KnowledgeIndex(folder).entries
    assert sorted((e.source, e.kind) for e in entries) == [
        ("docs/guide.md", "page"),
        ("docs/guide.md", "page"),
        ("docs/guide.md", "page"),
        ("past.jsonl", "query"),
        ("tables.sql", "query"),
        ("tables.sql", "table"),
        ("tables.sql", "table"),
    ]
    orders = next(entry for entry in entries if "TABLE orders" in entry.text)
    assert "one row an order" in orders.text


def test_only_what_fits_is_chosen(folder):
    index = KnowledgeIndex(folder)
    asked = "orders customers revenue refunds stock"
    assert 1 < len(index.chosen(asked, lambda texts: True)) <= MOST_ENTRIES
    assert len(index.chosen(asked, lambda texts: len(texts) < 2)) == 1
    assert index.chosen(asked, lambda texts: False) == []


def test_the_answer_itself_is_not_told(folder):
    index = KnowledgeIndex(folder)
    asked = "How many customers returned?"
    answer = "select count(*)\nfrom returns;"
    assert any("FROM returns" in entry.text for entry in index.ranked(asked))
    assert not any("FROM returns" in entry.text for entry in index.ranked(asked, answer))


@pytest.mark.parametrize("question", ["", "?!", 'x" OR "', "the of and", "NEAR(a b)", "a*b -c"])
def test_any_question_may_be_asked(folder, question):
    assert isinstance(KnowledgeIndex(folder).ranked(question), list)


def test_a_folder_without_anything_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds nothing to read"):
        KnowledgeIndex(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        KnowledgeIndex(tmp_path / "nowhere")


def test_training_rows_are_told_the_same(tmp_path):
    (tmp_path / "know").mkdir()
    page = "# Cities\nA city is large from ten shops on, says anna.meier@example.com.\n"
    (tmp_path / "know" / "a.md").write_text(page)
    query = "-- Which cities are there?\nSELECT DISTINCT city FROM shops ORDER BY city"
    (tmp_path / "know" / "past.sql").write_text(query + ";\n")
    (tmp_path / "log.sql").write_text(
        query + ";\nSELECT COUNT(id) FROM shops WHERE city = 'Ulm';\n"
    )
    out = sql_build(
        SQLBuildConfig(
            (str(tmp_path / "log.sql"),),
            out=str(tmp_path / "a.jsonl"),
            dialect="sqlite",
            test_share=0.0,
            knowledge=str(tmp_path / "know"),
        )
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    told = next(row["messages"] for row in rows if "DISTINCT" in row["messages"][-1]["content"])
    assert "large from ten shops" in told[0]["content"]
    assert "DISTINCT" not in told[0]["content"] and "anna.meier" not in out.read_text()
