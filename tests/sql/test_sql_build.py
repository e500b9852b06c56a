"""`nanochat sql build`: every format of logs, what is kept and what is dropped with which reason,
and that no secret leaves."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataset.check import sql_split
from nanochat.dataset.conversations import scan_conversations
from nanochat.sql import query_log
from nanochat.sql.learnt_queries import (
    DUPLICATE,
    ELSEWHERE,
    HEALTH,
    NO_QUESTION,
    SEVERAL,
    SYSTEM,
    TOO_LONG,
    UNPARSED,
)
from nanochat.sql.record_files import CUT_OFF, WIDTH
from nanochat.sql.sql_build import SQLBuildConfig, sql_build

PAID = "SELECT count() FROM orders WHERE status = 'paid'"
OPEN = "select count() from orders\nwhere status = 'open'"
CITY = "-- Revenue of each city\nSELECT city, sum(total) FROM orders GROUP BY city"
CYRILLIC = "SELECT total FROM orders WHERE city = 'Київ'"
QUERIES = [PAID, OPEN, CITY, CYRILLIC, "SELECT 1", "SELECT name FROM system.tables"]
KEPT, DROPPED = 3, {DUPLICATE: 1, HEALTH: 1, SYSTEM: 1}


def clickhouse(query: str, **changed: object) -> dict[str, object]:
    row = {
        "type": "QueryFinish",
        "query": query,
        "query_kind": "Select",
        "is_initial_query": 1,
        "exception_code": 0,
        "user": "anna",
    }
    return {**row, **changed}


def job(query: str, **changed: object) -> dict[str, object]:
    row = {
        "query": query,
        "job_type": "QUERY",
        "statement_type": "SELECT",
        "state": "DONE",
        "error_result": None,
        "user_email": "anna@firma.example.org",
    }
    return {**row, **changed}


def audit(query: str, **changed: object) -> dict[str, object]:
    config = {"query": query, "statementType": "SELECT", **changed}
    about = {"jobChange": {"job": {"jobConfig": {"queryConfig": config}, "jobStatus": {}}}}
    return {"protopayload_auditlog": {"metadataJson": json.dumps(about)}}


def build(tmp_path: Path, *sources: Path, **settings: object) -> tuple[list[dict], Counter, str]:
    """(rows of both sides, reasons -> how often, the report)."""
    cfg = SQLBuildConfig(
        sources=tuple(map(str, sources)), out=str(tmp_path / "made" / "data.jsonl")
    )
    for name, value in {"overwrite": True, **settings}.items():
        setattr(cfg, name, value)
    out = sql_build(cfg)
    rows = [
        json.loads(line)
        for path in (out, out.with_suffix(".test.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    report = out.with_suffix(".report.md").read_text(encoding="utf-8")
    dropped = Counter()
    for line in report.split("## Files")[0].splitlines():
        words = line.split(maxsplit=2)
        if words[:1] == ["dropped"]:
            dropped[words[2]] = int(words[1].replace(",", ""))
    return rows, dropped, report


def tsv(rows: list[dict[str, object]], end: str = "\n") -> str:
    def cell(value: object) -> str:
        return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")

    lines = ["\t".join(rows[0]), *("\t".join(map(cell, row.values())) for row in rows)]
    return end.join(lines) + end


def csv_text(rows: list[dict[str, object]], end: str = "\n", delimiter: str = ",") -> str:
    made = io.StringIO()
    writer = csv.DictWriter(made, list(rows[0]), lineterminator=end, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue()


def json_lines(rows: list[dict[str, object]], end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


ROWS = [clickhouse(query) for query in QUERIES]
TEXTS = {
    "log.jsonl": json_lines(ROWS),
    "crlf.jsonl": json_lines(ROWS, "\r\n"),
    "jobs.jsonl": json_lines([job(query) for query in QUERIES]),
    "audit.jsonl": json_lines([audit(query) for query in QUERIES]),
    "log.json": json.dumps({"meta": [], "data": ROWS}, indent=1),
    "list.json": json.dumps(ROWS),
    "log.tsv": tsv(ROWS),
    "crlf.tsv": tsv(ROWS, "\r\n"),
    "log.csv": csv_text(ROWS),
    "crlf.csv": csv_text(ROWS, "\r\n"),
    "sheet.tsv": csv_text(ROWS, delimiter="\t"),
    "jobs.csv": csv_text([job(query) for query in QUERIES]),
    "other.csv": csv_text([{"id": n, "sql": query} for n, query in enumerate(QUERIES)]),
    "other.jsonl": json_lines([{"statement": query} for query in QUERIES]),
    "queries.sql": ";\n\n".join(QUERIES) + ";\n",
    "crlf.sql": ";\r\n".join(QUERIES).replace("\r\n", "\n").replace("\n", "\r\n"),
    "no_ending": ";\n".join(QUERIES),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_format_is_read_by_its_content(tmp_path, name: str, encoding: str) -> None:
    file = tmp_path / name
    file.write_bytes(TEXTS[name].encode(encoding))
    rows, dropped, _ = build(tmp_path, file, dialect="clickhouse")
    assert (len(rows), dropped) == (KEPT, DROPPED)
    questions = {row["messages"][1]["content"] for row in rows}
    assert "Revenue of each city" in questions
    assert any("Київ" in question for question in questions)


def test_parquet_and_gzip(tmp_path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "log.parquet")
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(TEXTS["log.jsonl"].encode()))
    for name in ("log.parquet", "log.jsonl.gz"):
        rows, dropped, _ = build(tmp_path, tmp_path / name)
        assert (len(rows), dropped) == (KEPT, DROPPED)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_other_encodings(tmp_path, encoding: str) -> None:
    file = tmp_path / "log.csv"
    query = "-- Заказы, которые мы отправили каждому покупателю\nSELECT a FROM t WHERE c = 'Самара'"
    file.write_bytes(
        ("\ufeff" * (encoding == "utf-16-be") + csv_text([clickhouse(query)] * 9)).encode(encoding)
    )
    made, dropped, _ = build(tmp_path, file)
    assert made[0]["messages"][1]["content"] == "Заказы, которые мы отправили каждому покупателю"
    assert made[0]["sql"]["query"].endswith("c = 'Самара'")
    assert dropped == {DUPLICATE: 8}


REASONS = [
    (clickhouse("SELECT a FROM t", type="QueryStart"), query_log.STARTED),
    (clickhouse("SELECT a FROM t", type="ExceptionBeforeStart"), query_log.FAILED),
    (clickhouse("SELECT a FROM t", exception_code="159"), query_log.FAILED),
    (clickhouse("SELECT a FROM t", is_initial_query=0), query_log.PARTIAL),
    (clickhouse("INSERT INTO t VALUES (1)", query_kind="Insert"), query_log.WRITES),
    (clickhouse("OPTIMIZE TABLE t", query_kind=""), query_log.WRITES),
    (clickhouse("SELECT a FROM t", user="svc_etl"), query_log.MACHINES),
    (clickhouse("SELECT a FROM t", http_user_agent="Grafana/10"), query_log.MACHINES),
    (clickhouse("SELECT TOP 10 a FROM t"), UNPARSED),
    (clickhouse("SELECT a FROM t; SELECT b FROM t; -- done"), SEVERAL),
    (clickhouse("SELECT now(), version()"), HEALTH),
    (clickhouse("SELECT a FROM url('http://x/y.csv', CSV)"), ELSEWHERE),
    (clickhouse("SELECT a, row_number() OVER (ORDER BY b) FROM t"), NO_QUESTION),
    (clickhouse("SELECT '" + "x" * 5_000_000 + "' FROM t"), TOO_LONG),
    (clickhouse("SELECT '\ufffd' FROM t"), query_log.DAMAGED),
    (clickhouse("  "), query_log.NO_TEXT),
    (job("SELECT a FROM t", error_result={"reason": "invalidQuery"}), query_log.FAILED),
    (job("BEGIN SELECT 1; END", statement_type="SCRIPT"), query_log.SCRIPTS),
    (job("", job_type="LOAD"), query_log.WRITES),
    (job("SELECT a FROM t", state="RUNNING"), query_log.UNFINISHED),
    (job("SELECT a FROM t", user_email="x@y.iam.gserviceaccount.com"), query_log.MACHINES),
    (audit("SELECT a FROM t", queryTruncated=True), query_log.CUT_IN_LOG),
    (audit("DELETE FROM t", statementType="DELETE"), query_log.WRITES),
]


@pytest.mark.parametrize("row, reason", REASONS, ids=[f"{n}" for n in range(len(REASONS))])
def test_what_is_dropped_is_counted_with_its_reason(tmp_path, row: dict, reason: str) -> None:
    file = tmp_path / "log.jsonl"
    good = {"job_type": job, "protopayload_auditlog": audit}
    make = next((make for name, make in good.items() if name in row), clickhouse)
    file.write_text(json_lines([row, make("SELECT a FROM t WHERE b = 3")]), encoding="utf-8")
    rows, dropped, _ = build(tmp_path, file)
    assert len(rows) == 1
    assert dropped == {reason: 1}


CUTS = [("log.jsonl", CUT_OFF), ("log.tsv", WIDTH), ("log.csv", CUT_OFF)]


@pytest.mark.parametrize("name, reason", CUTS)
def test_a_last_line_that_is_cut_off_is_counted(tmp_path, name: str, reason: str) -> None:
    file = tmp_path / name
    rows = [{"query": query, "query_kind": "Select", "user": "a"} for query in (PAID, CITY)]
    whole = {"log.jsonl": json_lines, "log.tsv": tsv, "log.csv": csv_text}[name](rows)
    place = whole.rindex("Revenue")
    file.write_text(whole[:place], encoding="utf-8")
    rows, dropped, _ = build(tmp_path, file)
    assert (len(rows), dropped) == (1, {reason: 1})


def test_nothing_is_lost_in_silence(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    text = json_lines(ROWS * 3 + [r for r, _ in REASONS[:9]]) + '[1]\n"x"\n{"query": \n\n'
    file.write_text(text, encoding="utf-8")
    rows, dropped, report = build(tmp_path, file)
    assert len(rows) + sum(dropped.values()) == len(text.splitlines()) - 1  # the empty one
    assert f"read           {len(text.splitlines()) - 1:,} records" in report


SECRETS = ["ada.byron@firma.de", "+49 151 2345 6789", "sk-proj-Zq8sT3nQx7LmB2vK9dWf", "Ada Byron"]


def test_secrets_reach_neither_files_nor_output(tmp_path, capsys) -> None:
    mail, phone, key, name = SECRETS
    (tmp_path / "names.txt").write_text(f"{name}\n")
    source = tmp_path / "in"
    source.mkdir()
    log = [
        clickhouse(f"-- Orders of {mail}, call {phone}\nSELECT a FROM t WHERE m = '{mail}'"),
        clickhouse(f"SELECT a FROM t /* {key} */ WHERE k = '{key}' AND n = '{name}' AND b = 1"),
        clickhouse(f"SELECT b FROM t WHERE phone LIKE '%{phone}%' OR c IN ('{mail.upper()}')"),
        clickhouse(f"SELEC '{key}' FROM '{mail}'"),
        clickhouse(f'SELECT "{mail}" FROM t ORDER BY a'),
        clickhouse("SELECT d FROM t", log_comment=f"Report for {name}, {mail}"),
    ]
    (source / f"{mail}.jsonl").write_text(json_lines(log) + f'{{"query": "{key}')
    create = f"CREATE TABLE t (a INTEGER, m TEXT COMMENT 'ask {mail} or {phone}')"
    (source / "t.sql").write_text(create)
    page = f"# Access\n\nThe key is {key}; ask {name} or call {phone} first.\n"
    (source / "docs.md").write_text(page)
    build(tmp_path, source, names=str(tmp_path / "names.txt"))
    printed = capsys.readouterr()
    told = [printed.out, printed.err]
    told += [path.read_text() for path in (tmp_path / "made").iterdir()]
    for secret in SECRETS:
        assert not any(secret.casefold() in text.casefold() for text in told), secret
    assert "replaced" in printed.out


def test_the_same_person_stays_the_same_person(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    queries = ["SELECT a FROM t WHERE m = 'x@y.de'", "SELECT b FROM t WHERE m = 'X@y.de'"]
    file.write_text(json_lines([clickhouse(query) for query in queries]))
    rows, _, _ = build(tmp_path, file)
    assert [row["sql"]["query"].count("person1@example.com") for row in rows] == [1, 1]


def test_no_shape_is_on_both_sides(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    queries = [
        f"SELECT {column} FROM t{table} AS x WHERE x.{other} = {number} AND x.b IN ({number}, 2)"
        for column in "abc"
        for table in range(4)
        for other in "def"
        for number in range(5)
    ]
    file.write_text(json_lines([clickhouse(query) for query in queries]))
    build(tmp_path, file, per_shape=3, wordings=2)
    sides = [
        [json.loads(line)["sql"]["shape"] for line in (tmp_path / "made" / name).open()]
        for name in ("data.jsonl", "data.test.jsonl")
    ]
    assert not set(sides[0]) & set(sides[1])
    assert len(set(sides[0]) | set(sides[1])) == 36
    assert max(Counter(sides[0]).values()) > 3  # three queries, some with two wordings
    assert len(sides[1]) == 3 * len(set(sides[1]))


def test_a_build_is_repeatable_and_readable(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(TEXTS["log.jsonl"])
    build(tmp_path, file)
    made = tmp_path / "made" / "data.jsonl"
    first = made.read_bytes()
    build(tmp_path, file)
    assert made.read_bytes() == first
    contents = scan_conversations(made)
    assert not contents.problems
    assert not contents.notes()
    assert sql_split(contents) == [
        "SQL            2 queries of 2 shapes",
        "split          1 shapes in data.test.jsonl, 0 on both sides",
    ]
    (made.parent / "data.test.jsonl").write_bytes(first)
    assert sql_split(contents)[1].endswith("2 on both sides")


def test_earlier_files_are_not_replaced_unasked(tmp_path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(TEXTS["log.jsonl"])
    build(tmp_path, file)
    with pytest.raises(ValueError, match="--overwrite"):
        build(tmp_path, file, overwrite=False)


def test_what_is_no_source_is_named(tmp_path) -> None:
    (tmp_path / "log.jsonl").write_text(TEXTS["log.jsonl"])
    (tmp_path / "people.csv").write_text("name,age\nA,3\n")
    (tmp_path / "x.pdf").write_bytes(b"%PDF-1.4")
    _, _, report = build(tmp_path, tmp_path)
    assert "no column with queries" in report
    assert "a PDF document" in report
    with pytest.raises(ValueError, match="no such file"):
        build(tmp_path, tmp_path / "absent")


def test_a_column_of_another_name(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("id,befehl\n1,SELECT a FROM t\n")
    rows, _, _ = build(tmp_path, tmp_path / "x.csv", query_column="befehl")
    assert rows[0]["sql"]["query"] == "SELECT a FROM t"
