"""Asking a database in the terminal: what is proposed is looked at, and run only when asked."""

from __future__ import annotations

import sqlite3

import pytest
from test_terminal import engine  # noqa: F401  (a fixture)

from nanochat.serve.terminal import ChatCLIConfig, TerminalChat


@pytest.fixture
def shop(tmp_path):
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE shops (id INTEGER, city TEXT)")
    rows = [(number, f"city {number}") for number in range(40)]
    connection.executemany("INSERT INTO shops VALUES (?, ?)", [*rows, (99, "\x1b[31mred")])
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def talk(engine, shop, scripted, monkeypatch):  # noqa: F811
    """talk(answers, lines) -> (what was shown, the chat, the prompts that the model was given)."""

    def converse(answers, lines, **settings):
        shown, queue, asked = [], list(lines), []
        config = ChatCLIConfig(**{"max_tokens": 110, "sql": str(shop), **settings})

        def read(prompt):
            shown.append(prompt)
            if not queue:
                raise EOFError
            return queue.pop(0)

        chat = TerminalChat(engine, config, read, shown.append)
        really = chat.session.ask

        def ask(text, params=None):
            asked.append(text)
            tokenizer = engine.tokenizer
            end = tokenizer.encode_special("<|assistant_end|>")
            scripted(engine, [*tokenizer.encode(answers.pop(0)), end])
            return really(text, params)

        monkeypatch.setattr(chat.session, "ask", ask)
        chat.run()
        return "".join(shown), chat, asked

    return converse


def test_the_query_runs_when_the_person_says_so(talk):
    shown, _, asked = talk(["SELECT id, city FROM shops"], ["Which cities?", "r"])
    assert "Answer with one sqlite query." in asked[0] and "CREATE TABLE shops" in asked[0]
    assert asked[0].endswith("\n\nWhich cities?")
    assert "(`r` runs it)" in shown and "city 19" in shown and "city 20" not in shown
    assert "(41 rows, the first 20 shown)" in shown


def test_nothing_runs_by_itself(talk):
    shown, chat, _ = talk(["SELECT id, city FROM shops"], ["Which cities?"])
    assert "city 1" not in shown and chat.desk.proposed == "SELECT id, city FROM shops"
    assert "there is no query to run yet" in talk([], ["r"])[0]


def test_the_gate_asks_once_more_with_the_reason(talk):
    shown, _, asked = talk(["SELECT FROM", "SELECT city FROM shops WHERE id = 3"], ["Which?", "r"])
    assert len(asked) == 2 and "cannot be parsed as sqlite" in asked[1]
    assert "asking once more" in shown and "city 3" in shown


def test_then_it_says_that_it_has_no_valid_answer(talk):
    shown, chat, asked = talk(["I think so.", "DROP TABLE shops"], ["Which?", "r"])
    assert len(asked) == 2 and "(no valid answer: it does more than reading: DROP)" in shown
    assert chat.desk.proposed == "" and "there is no query to run yet" in shown


def test_what_goes_wrong_is_said(talk, shop):
    shown, _, _ = talk(["SELECT town FROM shops"], ["Which?", "r"])
    assert "(error: no such column: town)" in shown
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT n FROM r"
    shown, _, _ = talk([endless], ["Which?", "r"])
    assert "(more than 10,000 rows, the first 20 shown)" in shown


def test_what_a_database_holds_does_not_steer_the_terminal(talk):
    shown, _, _ = talk(["SELECT city FROM shops WHERE id = 99"], ["Which?", "r"])
    assert "\x1b" not in shown and "\\x1b[31mred" in shown


def test_what_a_folder_knows_stands_before_the_question(talk, tmp_path):
    (tmp_path / "know").mkdir()
    (tmp_path / "know" / "a.md").write_text("# Cities\nCities are in Europe.\n# Cars\nNone.\n")
    _, _, asked = talk(["SELECT 1"], ["Which cities?"], knowledge=str(tmp_path / "know"))
    assert asked[0].index("in Europe") < asked[0].index("CREATE TABLE") < asked[0].index("Which")
    assert "None." not in asked[0]


def test_a_small_context_gets_the_tables_that_the_question_speaks_of(engine, tmp_path):  # noqa: F811
    path = tmp_path / "many.db"
    connection = sqlite3.connect(path)
    for number in range(20):
        connection.execute(f"CREATE TABLE table_{number} (first INTEGER, second INTEGER)")
    connection.execute("CREATE TABLE dogs (breed TEXT)")
    connection.close()
    chat = TerminalChat(engine, ChatCLIConfig(sql=str(path), max_tokens=32), input, print)
    prompt = chat.desk.prompt("Which breed do the dogs have?")
    assert "CREATE TABLE dogs" in prompt and len(prompt) < 256 and "table_9" not in prompt


def test_flags_that_do_not_fit(engine):  # noqa: F811
    assert "a base model completes text" in ChatCLIConfig(source="base", sql="a").problems()[0]
    with pytest.raises(ValueError, match="no such database file"):
        TerminalChat(engine, ChatCLIConfig(sql="nowhere.db"))
