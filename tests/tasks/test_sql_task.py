"""The task SQL: answers are run in the cage on generated rows and judged by what they give."""

from __future__ import annotations

import json

import pytest

from nanochat.report.task_parts import task_parts
from nanochat.tasks.opening import open_task
from nanochat.tasks.sandbox import find_cage
from nanochat.tasks.sql_task import SQLTask
from nanochat.tasks.task_data import DataNotFound
from nanochat.train.rl_tasks import questions

pytestmark = pytest.mark.skipif(find_cage()[0] is None, reason=f"no cage: {find_cage()[1]}")
SCHEMA = "CREATE TABLE shops (id INTEGER PRIMARY KEY, city TEXT, area REAL);"
QUERY = "SELECT city FROM shops WHERE area > 10;"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT COUNT(*) FROM r"

TEN_MILLION = (
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r WHERE n < 10000000) "
    "SELECT n FROM r"
)


def rows(dialect):
    plain = [
        {"role": "user", "content": f"{SCHEMA}\n\nWhich cities have large shops?"},
        {"role": "assistant", "content": QUERY},
    ]
    facts = {"dialect": dialect, "query": QUERY, "schema": SCHEMA, "source": "log.jsonl:17"}
    told = [
        {"role": "system", "content": SCHEMA},
        {"role": "user", "content": "Which cities?"},
        {"role": "assistant", "content": QUERY},
    ]
    return [{"messages": plain, "source": "made"}, {"messages": told, "sql": facts}]


def task_of(path, dialect="sqlite", made=None):
    path.write_text("".join(json.dumps(row) + "\n" for row in made or rows(dialect)))
    return open_task("SQL", sql_data=str(path))


def reason(task, answer, index=0):
    return task.verdict(task[index], answer).reason


def test_answers_end_as_what_they_were(tmp_path):
    task = task_of(tmp_path / "a.jsonl")
    assert task.evaluate(task[0], QUERY) and task.evaluate(task[1], f"```sql\n{QUERY}\n```")
    assert task.evaluate(task[0], "select s.city from shops s where not (s.area <= 10)")
    assert task.evaluate(task[0], f"```sql\n{QUERY} -- the large ones\n```")
    for answer, ended in [
        ("SELECT city FROM shops WHERE area >= 10", "wrong result"),
        ("I cannot tell.", "no query"),
        ("SELECT FROM", "not understood"),
        ("SELECT town FROM shops", "error"),
        ("DROP TABLE shops", "refused"),
        ("ATTACH DATABASE 'a' AS b", "refused"),
        ("PRAGMA table_info(shops)", "refused"),
        ("COPY shops TO 'a'", "refused"),
        ("SELECT * FROM url('http://a')", "refused"),
        (ENDLESS, "timeout"),
        (TEN_MILLION, "too many rows"),
    ]:
        assert reason(task, answer) == ended, answer
        assert not task.evaluate(task[0], answer)


def test_a_query_that_runs_earns_a_little(tmp_path):
    task = task_of(tmp_path / "a.jsonl")
    assert task.reward(task[0], QUERY) == 1.0
    assert 0 < task.reward(task[0], "SELECT city FROM shops") < 0.5
    assert task.reward(task[0], "no idea") == 0.0


def test_duckdb_runs_in_the_cage_too(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    task = task_of(tmp_path / "a.jsonl", "postgres")
    assert reason(task, QUERY, 1) == "right"
    assert reason(task, "SELECT id FROM shops", 1) == "wrong result"
    assert reason(task, "SELECT * FROM read_text('/etc/passwd')", 1) == "refused"


def test_parts_and_cases_reach_the_report(tmp_path):
    task = task_of(tmp_path / "a.jsonl")
    found = task.breakdown([task[0], task[1]], [QUERY, "SELECT city FROM shops"])
    assert found.parts["measure"]["execution match"] == [1, 0]
    assert found.parts["measure"]["executable"] == [1, 1]
    assert found.parts["measure"]["exact match"] == [1, 0]
    assert found.parts["source"] == {"log.jsonl": [0], "made": [1]}
    assert found.parts["tables"] == {"1": [1, 0]} and "WHERE" in found.parts["clause"]
    case = found.cases[0]
    assert case["expected"] == QUERY and case["reason"] == "wrong result"
    assert case["answer_rows"] != case["expected_rows"]
    score = {"score": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    entry = {"parts": {"measure": {"executable": score}}, "counts": found.counts, "cases": [case]}
    told = str(task_parts("SQL", entry))
    assert QUERY in told and "wrong result" in told and "0.100 to 0.900" in told


def test_the_test_rows_of_a_built_file_are_examined(tmp_path):
    made = rows("sqlite")
    task_of(tmp_path / "a.test.jsonl", made=made[:1])
    assert len(task_of(tmp_path / "a.jsonl")) == 1
    assert len(SQLTask("train", str(tmp_path / "a.jsonl"))) == 2


def test_rows_that_are_no_questions_are_told_with_their_line(tmp_path):
    bad = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    with pytest.raises(ValueError, match=r"a\.jsonl:1: messages: without a field `sql`"):
        task_of(tmp_path / "a.jsonl", made=[bad])


def test_an_expected_query_that_does_not_run_is_no_crash(tmp_path):
    made = rows("sqlite")[:1]
    made[0]["messages"][1]["content"] = "SELECT absent FROM shops"
    task = task_of(tmp_path / "a.jsonl", made=made)
    assert reason(task, QUERY) == "unanswerable"
    assert task.breakdown([task[0]], [QUERY]).cases[0]["reason"].startswith("unanswerable")


def test_absent_rows_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.delenv("NANOCHAT_DATA_DIR", raising=False)
    with pytest.raises(DataNotFound, match="--sql-data"):
        open_task("SQL")


def test_what_a_folder_knows_stands_before_the_question(tmp_path):
    (tmp_path / "know").mkdir()
    (tmp_path / "know" / "a.md").write_text("# Cities\nA city is large from ten on.\n")
    (tmp_path / "know" / "b.sql").write_text(f"-- cities\n{QUERY}\n")
    (tmp_path / "a.jsonl").write_text(json.dumps(rows("sqlite")[1]) + "\n")
    told = SQLTask("test", str(tmp_path / "a.jsonl"), knowledge=str(tmp_path / "know"))[0]
    asked = told["messages"][0]["content"]
    assert "large from ten" in asked and asked.index("large") < asked.index("CREATE TABLE")
    assert "area > 10" not in asked and told["messages"][-1]["content"] == QUERY


def test_reinforcement_learning_asks_them(tmp_path):
    task_of(tmp_path / "a.jsonl")
    asked = questions("SQL", 0, sql_data=str(tmp_path / "a.jsonl"))
    assert len(asked.train) == 2 and list(asked.held_out) == ["SQL"]


def test_the_gate_asks_once_more(tmp_path):
    file = tmp_path / "a.jsonl"
    assert task_of(file).second_try(task_of(file)[0], "SELECT FROM") is None
    task = SQLTask("test", str(file), gate=True)
    assert task.second_try(task[0], "SELECT area FROM shops") is None
    again = task.second_try(task[0], "SELECT FROM")["messages"]
    assert [m["role"] for m in again] == ["user", "assistant", "user", "assistant"]
    assert again[1]["content"] == "SELECT FROM"
    assert "no valid sqlite query: cannot be parsed as sqlite" in again[2]["content"]
