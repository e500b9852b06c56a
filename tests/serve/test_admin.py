"""What an admin sees and changes: models, users, feedback, usage; what others may not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from team import PASSWORD, Person, add_people, sqlite_storage

from nanochat.dataset.conversations import scan_conversations
from nanochat.runtime.world import World
from nanochat.serve.chat_web import load_service
from nanochat.serve.svg_chart import Bar, bar_chart, nice_top, short
from nanochat.serve.web_config import ChatWebConfig
from nanochat.store import users
from nanochat.store.chat_tables import ConversationRow, FeedbackRow, MessageRow

WORLD = World(0, 0, 1, torch.device("cpu"))
EVIL = "<script>alert(1)</script>\"'&"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.fixture
def team(own_server: Callable, tmp_path: Path, save_tiny, base_dir) -> Iterator[Any]:
    """People of a server over the checkpoint sft:d2:10, with step 20 beside it."""
    storage = sqlite_storage(tmp_path)
    keys = add_people(storage.database)
    for step in (10, 20):
        save_tiny(step, step)
    service = load_service(ChatWebConfig(step=10), WORLD)
    server = own_server(storage=storage, service=service)
    people: list[Person] = []

    def person(name: str) -> Person:
        people.append(Person(name, server.url, keys[name]))
        people[-1].sign_in()
        return people[-1]

    person.database, person.server = storage.database, server  # type: ignore[attr-defined]
    yield person
    for one in people:
        one.browser.close()


def answered(team, name: str, answer: str = "wrong", question: str = "q") -> str:
    """The id of an answer in a conversation of a user."""
    with team.database.write() as session:
        talk = ConversationRow(user_id=users.named(session, name).id, system_prompt="s")
        session.add(talk)
        session.flush()
        asked = MessageRow(conversation_id=talk.id, role="user", content=question)
        session.add(asked)
        session.flush()
        message = MessageRow(
            conversation_id=talk.id,
            parent_id=asked.id,
            role="assistant",
            content=answer,
            model="sft:d2",
        )
        session.add(message)
        session.flush()
        return message.public_id


def test_models_come_and_go_over_http(team):
    root = team("root")
    assert "<code>sft:d2</code>" in root.ask("GET", "/admin/models").text
    assert ">Load<" in root.ask("GET", "/admin/models").text
    first = root.ask("POST", "/v1/chat/completions", json=CHAT).json()
    load = {"action": "load", "model": "sft:d2:20"}
    loaded = root.ask("POST", "/admin/models", json=load)
    assert loaded.json()["model"] == "sft:d2:20", loaded.text
    assert ">Load<" not in root.ask("GET", "/admin/models").text
    again = root.ask("POST", "/admin/models", json=load)
    assert again.status_code == 400 and "served already" in again.text
    for action, model in (("default", "sft:d2:20"), ("unload", "sft:d2")):
        done = root.ask("POST", "/admin/models", json={"action": action, "model": model})
        assert done.status_code == 200, done.text
    assert [m["name"] for m in done.json()["models"] if m["state"] == "served"] == ["sft:d2:20"]
    second = root.ask("POST", "/v1/chat/completions", json=CHAT).json()
    assert (first["model"], second["model"]) == ("sft:d2", "sft:d2:20")
    last = root.ask("POST", "/admin/models", json={"action": "unload", "model": "sft:d2:20"})
    assert last.status_code == 409
    by_key = team.server.http.post(
        f"{team.server.url}/admin/models", json=load, headers=root.bearer
    )
    assert by_key.status_code == 400 and "served already" in by_key.text


def test_nothing_of_it_is_for_users_or_without_the_token(team):
    anna, root = team("anna"), team("root")
    for path in ("", "/usage", "/users", "/feedback", "/models"):
        assert anna.ask("GET", f"/admin{path}").status_code == 403
        assert root.ask("GET", f"/admin{path}").status_code in (200, 303)
    load = {"action": "load", "model": "sft:d2:20"}
    assert anna.ask("POST", "/admin/models", json=load).status_code == 403
    root.csrf = "of-another-page"
    assert root.ask("POST", "/admin/models", json=load).status_code == 403


def test_feedback_is_given_reviewed_and_exported(team, tmp_path):
    anna, berta, root = team("anna"), team("berta"), team("root")
    message = answered(team, "anna", "wrong", EVIL)
    body = {"message": message, "vote": -1, "comment": EVIL, "corrected": "right"}
    assert berta.ask("POST", "/api/feedback", json=body).status_code == 404
    given = anna.ask("POST", "/api/feedback", json=body)
    assert given.status_code == 200, given.text
    number = given.json()["id"]
    assert anna.ask("POST", "/api/feedback", json={**body, "vote": 1}).json()["id"] == number
    for wrong in ({"vote": 2}, {"vote": "1"}, {"more": 1}, {"message": ""}):
        assert anna.ask("POST", "/api/feedback", json={**body, **wrong}).status_code == 400
    with team.database.read() as session:
        kept = session.query(FeedbackRow).one()
        said = [message["content"] for message in kept.prompt]
        assert said == ["s", EVIL] and kept.answer == "wrong"
        assert kept.settings == {"temperature": 0.8, "top_k": 50, "max_tokens": 512}
    shown = root.ask("GET", "/admin/feedback").text
    assert "right</textarea>" in shown and "new (1)" in shown and "not agreed" in shown
    assert "<script>alert" not in shown and "&lt;script&gt;alert(1)" in shown
    review = f"/admin/feedback/{number}"
    assert anna.ask("POST", review, json={"decision": "accept"}).status_code == 403
    assert root.ask("POST", review, json={"decision": "edit"}).status_code == 400
    same = {"decision": "accept", "corrected": "right"}
    assert root.ask("POST", review, json=same).json()["status"] == "accepted"
    edit = {"decision": "accept", "corrected": "better, mail a@b.org"}
    assert root.ask("POST", review, json=edit).json()["status"] == "edited"
    assert root.ask("POST", "/admin/feedback/nothing", json=edit).status_code == 404
    export = "/admin/feedback/export/conversations.jsonl"
    assert root.ask("GET", export).text == ""
    anna.ask("PATCH", "/api/me", json={"consent_training": True})
    file = tmp_path / "conversations.jsonl"
    file.write_text(root.ask("GET", export).text)
    row = json.loads(file.read_text())
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][1]["content"] == EVIL
    assert row["messages"][2]["content"] == "better, mail [e-mail]"
    assert not scan_conversations(file).problems
    pairs = root.ask("GET", "/admin/feedback/export/preferences.jsonl").text
    assert json.loads(pairs)["rejected"][0]["content"] == "wrong"
    assert berta.ask("DELETE", f"/api/feedback/{number}").status_code == 404
    assert anna.ask("DELETE", f"/api/feedback/{number}").status_code == 200


def test_users_are_made_changed_and_deleted_with_all_that_is_theirs(team):
    root, berta = team("root"), team("berta")
    new = {"name": "carl", "password": PASSWORD, "role": "user"}
    number = root.ask("POST", "/admin/users", json=new).json()["id"]
    assert root.ask("POST", "/admin/users", json=new).status_code == 400
    carl = Person("carl", root.url, "")
    assert carl.sign_in().status_code == 303
    address = f"/admin/users/{number}"
    limits = {"tokens_per_day": "9", "requests_per_minute": ""}
    assert root.ask("PATCH", address, json=limits).status_code == 200
    assert carl.ask("GET", "/api/me").json()["tokens_per_day"] == 9
    assert carl.ask("POST", "/v1/chat/completions", json=CHAT).status_code == 429
    for wrong in ({"tokens_per_day": -1}, {"role": "king"}, {"kind": "local"}):
        assert root.ask("PATCH", address, json=wrong).status_code == 400, wrong
    assert root.ask("PATCH", address, json={"disabled": "true"}).status_code == 200
    assert carl.ask("GET", "/api/me").status_code == 401
    shown = root.ask("GET", "/admin/users").text
    assert "carl" in shown and "disabled" in shown
    message = answered(team, "berta")
    berta.ask("POST", "/api/feedback", json={"message": message, "vote": 1})
    with team.database.read() as session:
        ids = {name: users.named(session, name).public_id for name in ("berta", "root")}
    keys = re.findall(rf"users/{ids['berta']}/keys/(\w+)", shown)
    assert len(keys) == 1
    assert root.ask("DELETE", f"/admin/users/{ids['berta']}/keys/{keys[0]}").status_code == 200
    asked = team.server.http.get(f"{root.url}/v1/models", headers=berta.bearer)
    assert asked.status_code == 401
    assert root.ask("DELETE", f"/admin/users/{ids['berta']}").status_code == 200
    with team.database.read() as session:
        assert session.query(ConversationRow).count() == session.query(FeedbackRow).count() == 0
    me = f"/admin/users/{ids['root']}"
    assert root.ask("DELETE", me).status_code == 400
    assert root.ask("PATCH", me, json={"role": "user"}).status_code == 400  # the last admin
    assert root.ask("DELETE", "/admin/users/nobody").status_code == 404


def test_usage_is_shown_with_its_cost(team):
    root, anna = team("root"), team("anna")
    for person in (root, anna, anna):
        assert person.ask("POST", "/v1/chat/completions", json=CHAT).status_code == 200
    end = time.monotonic() + 5
    while "3 requests" not in (shown := root.ask("GET", "/admin/usage?days=7").text):
        assert time.monotonic() < end, shown
    assert (
        "<svg" in shown and "tokens in" in shown and "sft:d2" in shown and "Cost a day" not in shown
    )
    priced = root.ask("GET", "/admin/usage?days=7&rate=3600").text
    assert "a million tokens" in priced and "Cost a day" in priced
    assert root.ask("GET", "/admin/usage?rate=much").status_code == 400
    for policy in ("script-src 'self'", "form-action 'none'"):
        answer = root.ask("GET", "/admin/usage")
        assert policy in answer.headers["Content-Security-Policy"]
    assert " style=" not in shown and "onclick" not in shown


def test_charts():
    assert [nice_top(value) for value in (0, 1, 3, 9, 12, 81, 2500)] == [4, 1, 4, 10, 20, 100, 4000]
    assert [short(value) for value in (0, 12, 1234, 5_600_000)] == ["0", "12", "1.23k", "5.6M"]
    bars = [Bar(label=f"<{day}>", parts=(day, 1.0)) for day in range(30)]
    drawn = bar_chart(bars, 'a "title"', ("in", "out"))
    assert drawn.count("<rect") == 60 and "<0>" not in drawn and "a &quot;title&quot;" in drawn
    assert drawn.count('text-anchor="middle"') <= 8 and bar_chart([], "", ()) == ""
