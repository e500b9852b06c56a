"""What else `sql build` reads: definitions, models, documentation; and the words it finds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nanochat.dataset.chat_endpoint import EndpointAnswer, Refused
from nanochat.sql.comments import question_in
from nanochat.sql.definitions import Definitions, comment_on, from_document, from_statement
from nanochat.sql.dialect_parser import guess_dialect, parse_one, split_statements, tokenized
from nanochat.sql.doc_sections import markdown_sections, openapi_sections
from nanochat.sql.needed_schema import needed_schema
from nanochat.sql.query_shape import fingerprint, shape_of
from nanochat.sql.question_writer import QuestionWriter
from nanochat.sql.stand_ins import SQLRedactor
from nanochat.sql.table_schema import SQLColumn, SQLTable, schema_text
from nanochat.sql.transformations import JINJA, read_transformation
from nanochat.sql.wording import question_for

CREATES = {
    "clickhouse": "CREATE TABLE db.t (a UInt64 COMMENT 'the key', b String) "
    "ENGINE = MergeTree ORDER BY a COMMENT 'all of it'",
    "bigquery": "CREATE TABLE `p.db.t` (a INT64 OPTIONS(description='the key'), b STRING) "
    "OPTIONS(description='all of it')",
    "sqlite": "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, -- the key\n b TEXT)",
    "postgres": "CREATE TABLE t (a serial NOT NULL, b jsonb, FOREIGN KEY (b) REFERENCES u(id))",
    "duckdb": "CREATE TABLE t (a HUGEINT, b VARCHAR REFERENCES u(id))",
}


@pytest.mark.parametrize("dialect", CREATES)
def test_definitions_of_every_dialect(dialect: str) -> None:
    assert guess_dialect([CREATES[dialect]]) == dialect
    table = from_statement(parse_one(CREATES[dialect], dialect), dialect, "x")
    assert table is not None
    assert (table.short_name, [c.name for c in table.columns]) == ("t", ["a", "b"])
    assert all(column.type for column in table.columns)
    if dialect in ("clickhouse", "bigquery"):
        assert (table.description, table.columns[0].description) == ("all of it", "the key")
    if dialect in ("postgres", "duckdb"):
        assert table.columns[1].references == "u.id"
    again = from_statement(parse_one(schema_text([table], dialect), dialect), dialect, "x")
    assert again is not None
    assert [c.type for c in again.columns] == [c.type for c in table.columns]


def test_comments_on_columns_are_added() -> None:
    known = Definitions()
    table = from_statement(parse_one("CREATE TABLE s.t (a int)", "postgres"), "postgres", "x")
    assert table is not None
    known.add(table)
    about = comment_on(parse_one("COMMENT ON COLUMN s.t.a IS 'its age'", "postgres"))
    assert about is not None
    known.describe(*about)
    found = known.find("T")
    assert found is not None
    assert found.columns[0].description == "its age"


def test_schema_documents() -> None:
    inner = [{"name": "x", "type": "INTEGER"}]
    fields = [
        {"name": "a", "type": "STRING", "description": "key"},
        {"name": "r", "type": "RECORD", "mode": "REPEATED", "fields": inner},
    ]
    assert from_document(fields, "orders", "x")[0].columns[1].type == "ARRAY<STRUCT<x INT64>>"
    shown = {"schema": {"fields": fields}, "tableReference": {"datasetId": "d", "tableId": "t"}}
    assert from_document(shown, "file", "x")[0].name == "d.t"
    test = {"relationships": {"to": "ref('people')", "field": "id"}}
    model = {"name": "m", "columns": [{"name": "p", "description": "who", "tests": [test]}]}
    source = {"name": "raw", "tables": [{"name": "s", "columns": []}]}
    tables = from_document({"version": 2, "models": [model], "sources": [source]}, "f", "x")
    assert [t.name for t in tables] == ["m", "raw.s"]
    assert tables[0].columns[0] == SQLColumn(name="p", description="who", references="people.id")
    assert from_document({"hello": 1}, "f", "x") == []


def test_models_become_queries() -> None:
    config = 'config {\n type: "table",\n description: "Sales per day"\n}\n'
    text = config + 'select a from ${ref("s", "t")}'
    made = read_transformation(Path("m.sqlx"), text)
    assert (made.query, made.description) == ("select a from s.t", "Sales per day")
    text = "{{ config(x='table') }}\n-- x\nselect a from {{ ref('t') }}, {{ source('s', 'u') }}"
    assert read_transformation(Path("m.sql"), text).query == "-- x\nselect a from t, s.u"
    assert (
        read_transformation(Path("m.sql"), "select {% if x %} a {% endif %} from t").problem
        == JINJA
    )


def test_pages_and_apis_become_questions() -> None:
    page = (
        "---\nx: 1\n---\n# Shop\nAll about the shop and what it sells to people.\n"
        "## How do I pay?\n```\n# no heading\n```\nWith coins, at the counter, or online."
    )
    first, second = markdown_sections(page, "page")
    assert first.question == "What does the documentation say about Shop?"
    assert second.question == "How do I pay (Shop)?"
    assert "# no heading" in second.answer
    read = {"summary": "Read an order.", "parameters": [{"$ref": "#/p/id"}]}
    api = {
        "openapi": "3.0.0",
        "info": {"title": "Shop API"},
        "paths": {"/o/{id}": {"get": read}},
        "p": {"id": {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}},
    }
    (section,) = openapi_sections(api)
    assert section.question == "Which call do I use to read an order with the Shop API?"
    assert section.answer == "GET /o/{id}\n- id (path, integer, required)"


def test_statements_are_split_where_they_end() -> None:
    text = "-- a; b\nSELECT ';' FROM t;\n\n/* ; */ SELECT \"x;y\";\n"
    assert split_statements(text) == [
        (1, "-- a; b\nSELECT ';' FROM t"),
        (4, '/* ; */ SELECT "x;y"'),
    ]


SAME = [
    ("SELECT a FROM t WHERE b = 1", "select A from T where B = 77"),
    ("SELECT a FROM t AS x WHERE x.b IN (1, 2)", "SELECT a FROM t y WHERE y.b IN (3)"),
    (
        "SELECT a AS k FROM t WHERE b = 1 AND c = 'x'",
        "SELECT a AS l FROM t WHERE c = 'y' AND b = 2",
    ),
]
OTHER = [
    ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b > 1"),
    ("SELECT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY b DESC"),
    ("SELECT SUM(a) FROM t", "SELECT AVG(a) FROM t"),
    ("SELECT a, b FROM t", "SELECT b, a FROM t"),
]


def test_shapes() -> None:
    def shape(text: str) -> str:
        return shape_of(parse_one(text, "sqlite"), "sqlite")

    assert all(shape(one) == shape(other) for one, other in SAME)
    assert not any(shape(one) == shape(other) for one, other in OTHER)
    marks = [fingerprint(tokenized(text, "sqlite")) for text in SAME[0]]
    assert marks[0] == marks[1]


WORDS = {
    "SELECT COUNT(*) FROM orders WHERE status = 'paid'": ["orders", "status", "paid"],
    "SELECT city, SUM(total) FROM orders GROUP BY city HAVING COUNT(*) > 3": [
        "city",
        "number",
        "3",
    ],
    "SELECT DISTINCT city FROM orders ORDER BY city DESC LIMIT 5": ["different city", "5"],
    "SELECT MAX(total) FROM orders WHERE NOT city IN ('a', 'b')": ["not a or b"],
    "SELECT name FROM people WHERE id IN (SELECT person FROM orders)": [
        "among the person of orders"
    ],
    "SELECT p.name FROM people p JOIN orders o ON o.person = p.id WHERE o.total > 9": [
        "order total",
        "9",
    ],
    "SELECT name FROM people WHERE name LIKE 'A%' AND age IS NULL": [
        "starts with A",
        "age is missing",
    ],
}


@pytest.mark.parametrize("query", WORDS)
def test_words_say_every_part(query: str) -> None:
    tree = parse_one(query, "sqlite")
    made = {question_for(tree, lambda name: None, str(seed)) for seed in range(8)}
    assert None not in made
    assert len(made) > 1
    assert all(part in str(question) for question in made for part in WORDS[query])
    assert question_for(tree, lambda name: None, "3") == question_for(tree, lambda name: None, "3")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a, RANK() OVER (ORDER BY b) FROM t",
        "SELECT a FROM t UNION SELECT b FROM u",
        "WITH c AS (SELECT a FROM t) SELECT a FROM c",
        "SELECT CASE WHEN a = 1 THEN 2 END FROM t",
        "SELECT a FROM t JOIN u ON t.x > u.y",
        "SELECT a FROM t, u",
        "SELECT a, SUM(b) FROM t",
    ],
)
def test_what_has_no_words_gets_no_question(query: str) -> None:
    assert question_for(parse_one(query, "sqlite"), lambda name: None, "0") is None


def test_comments_that_are_questions() -> None:
    assert question_in(["Total revenue by city"]) == "Total revenue by city"
    assert question_in(["x", "Question: who pays most?"]) == "who pays most?"
    assert question_in(["每个城市的订单总数是多少"]) == "每个城市的订单总数是多少"
    for noise in (
        "Metabase:: userID: 3 queryType: native",
        "SELECT a FROM t",
        "TODO fix this some day",
        "-----",
        '{"app": "dbt", "node_id": "x"}',
    ):
        assert question_in([noise]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-02 10:11:12",
        "1704067200",
        "20240102",
        "order 12345 of 1,234,567",
        "1.2.3 and 99.5%",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert SQLRedactor().text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a.b+c@firma.co.uk",
        "müller@straße.de",
        "(555) 123-4567",
        "0151/2345678",
        "5551234567",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwxyz012345",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "550e8400-e29b-41d4-a716-446655440000",
        "https://u:geheim1@host/x",
        "password=hunter22",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
    ],
)
def test_secrets_are_replaced_once_and_for_all(text: str) -> None:
    redactor = SQLRedactor()
    made = redactor.text(f"x {text} y")
    assert text not in made
    assert redactor.text(made) == made
    assert redactor.text(f"x {text} y") == made


def test_numbers_of_people_in_code() -> None:
    query = "SELECT a FROM t WHERE phone = 4915112345678 AND id = 4915112345678 LIMIT 1000000"
    made = SQLRedactor().query(tokenized(query, "sqlite"))
    assert made == "SELECT a FROM t WHERE phone = 9000001 AND id = 4915112345678 LIMIT 1000000"


def test_a_schema_is_cut_to_what_fits() -> None:
    columns = tuple(SQLColumn(name=f"c{n}", type="int") for n in range(200))
    used, other = SQLTable(name="t", columns=columns), SQLTable(name="u", columns=columns[:2])
    made = needed_schema(
        [used],
        [other],
        ["c150"],
        dialect="sqlite",
        distractors=1,
        most_tokens=100,
        count=lambda text: len(text) // 4,
        seed="0",
    )
    assert len(made) // 4 <= 100
    assert "c150 int" in made
    assert "c0 int" in made
    assert "c199" not in made


class Endpoint:
    """Answers like an endpoint; refuses after `most` answers."""

    base_url, model = "http://x", "m"

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked = 0

    def ask(self, text: str) -> EndpointAnswer:
        if self.asked == self.most:
            raise Refused("enough")
        self.asked += 1
        return EndpointAnswer(
            text=f'"What is {len(text)}?"\nmore', prompt_tokens=10, completion_tokens=5
        )


def test_questions_that_were_paid_for_are_kept(tmp_path) -> None:
    queries = [("sqlite", "", f"SELECT {'a' * n} FROM t") for n in range(1, 6)]

    def writer(most: int) -> QuestionWriter:
        return QuestionWriter(
            endpoint=Endpoint(most),  # type: ignore[arg-type]
            cache=tmp_path / "q.jsonl",
            concurrency=1,
            input_price=1e6,
        )

    with pytest.raises(Refused):
        writer(3).write(queries)
    with open(tmp_path / "q.jsonl", "a") as file:
        file.write('{"key": "cut o')
    again = writer(9)
    made = again.write(queries)
    assert len(set(made)) == 5
    assert made[0].startswith("What is ")
    assert again.reused >= 2
    assert again.prompt_tokens == 10 * (5 - again.reused)
    assert f"${again.prompt_tokens:.2f}" in again.cost()


def test_a_random_order_tells_nothing() -> None:
    tables = [SQLTable(name=name, columns=(SQLColumn(name="a"),)) for name in "tu"]
    first = {
        needed_schema(
            tables[:1],
            tables[1:],
            [],
            dialect="",
            distractors=1,
            most_tokens=100,
            count=len,
            seed=str(random.Random(n).random()),
        )
        for n in range(9)
    }
    assert len(first) == 2
