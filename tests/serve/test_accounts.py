"""Signing in, keys, limits and usage over HTTP."""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from team import PASSWORD, add_people, filled, routes_of, sqlite_storage

from nanochat.serve.http.callers import COOKIE, PUBLIC_ROUTES
from nanochat.store import usage, users
from nanochat.store.account_tables import ApiKeyRow, UsageRow, UserRow, WebSessionRow

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def usage_rows(team: Callable) -> list[UsageRow]:
    with team.database.read() as session:
        return session.query(UsageRow).order_by(UsageRow.id).all()


def test_every_route_needs_a_caller_but_those_that_are_listed(team):
    server = team.server
    app = server.server.config.app
    walked = routes_of(app)
    assert len(walked) > 15
    for method, path in walked:
        answer = server.http.request(method, f"{server.url}{filled(path)}", json={})
        if path in PUBLIC_ROUTES:
            assert "not_signed_in" not in answer.text, f"{method} {path} is public"
            assert answer.status_code != 403, f"{method} {path} is public"
        else:
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
            assert answer.json()["error"]["code"] == "not_signed_in"
    for path in (
        "/nowhere",
        "/pages/../stats",
        "/v1//models",
        "/login/../stats",
        "//stats",
        "/%2e/",
    ):
        status = server.http.get(f"{server.url}{path}").status_code
        assert status in (401, 404), path
        assert "workers" not in server.http.get(f"{server.url}{path}").text


def test_admin_routes_are_for_admins(team):
    anna = team("anna")
    for method, path in routes_of(team.server.server.config.app):
        if path.startswith("/admin"):
            answer = team.server.http.request(
                method, f"{team.server.url}{filled(path)}", json={}, headers=anna.bearer
            )
            assert answer.status_code == 403, f"{method} {path}: {answer.status_code}"


def test_a_person_signs_in_and_out(team):
    anna = team("anna")
    page = anna.browser.get(f"{anna.url}/", headers={"Accept": "text/html"})
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=%2F"
    assert "<form" in anna.browser.get(f"{anna.url}/login").text
    answer = anna.sign_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    me = anna.ask("GET", "/api/me").json()
    assert (me["name"], me["role"], me["accounts"]) == ("anna", "user", True)
    assert anna.browser.get(f"{anna.url}/").status_code == 200
    assert anna.browser.get(f"{anna.url}/login").status_code == 303  # is signed in already
    assert anna.ask("POST", "/chat/completions", json=CHAT).status_code == 200
    token = anna.browser.cookies[COOKIE]
    assert anna.ask("POST", "/logout").json() == {"signed_in": False}
    assert COOKIE not in anna.browser.cookies
    old = {"Cookie": f"{COOKIE}={token}"}
    assert httpx.get(f"{anna.url}/api/me", headers=old).status_code == 401


def test_cookies_are_secure_behind_tls(team):
    anna = team("anna")
    form = {"name": "anna", "password": PASSWORD}
    answer = httpx.post(f"{anna.url}/login", data=form, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("anna", "wrong"),
        ("anna", ""),
        ("nobody", PASSWORD),
        ("", ""),
        ("anna' OR '1'='1", "' OR '1'='1"),
        ("anna\0", PASSWORD),
        ("anna", PASSWORD + "\0"),
        ("local", ""),
        ("anna", "x" * 100_000),
    ],
)
def test_wrong_passwords_are_told_alike(team, name: str, password: str):
    anna = team("anna")
    with team.database.write() as session:
        users.local_user(session)
    answer = anna.browser.post(f"{anna.url}/login", data={"name": name, "password": password})
    assert answer.status_code == 401
    assert "name or password is not right" in answer.text
    assert COOKIE not in anna.browser.cookies


def test_a_disabled_user_is_out_at_once(team):
    anna = team("anna")
    anna.sign_in()
    with team.database.write() as session:
        users.set_disabled(session, users.existing(session, "anna"), True)
    time.sleep(1.1)  # as long as callers are remembered
    assert anna.ask("GET", "/api/me").status_code == 401
    models = f"{anna.url}/v1/models"
    assert httpx.get(models, headers=anna.bearer).json()["error"]["code"] == "invalid_api_key"
    anna.browser.cookies.clear()
    assert anna.sign_in().status_code == 401


def test_keys_are_shown_once_and_revoked(team):
    anna, berta = team("anna"), team("berta")
    anna.sign_in()
    berta.sign_in()
    made = anna.ask("POST", "/api/keys", json={"name": "laptop", "days": 7})
    assert made.status_code == 201
    key = made.json()["key"]
    listed = anna.ask("GET", "/api/keys")
    assert [k["name"] for k in listed.json()["data"]] == ["laptop", "test"]
    assert key not in listed.text
    with team.database.read() as session:
        assert all(key not in str(vars(row)) for row in session.query(ApiKeyRow))
    bearer = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{anna.url}/v1/models", headers=bearer).status_code == 200
    assert berta.ask("DELETE", f"/api/keys/{made.json()['id']}").status_code == 404
    assert httpx.get(f"{anna.url}/v1/models", headers=bearer).status_code == 200
    assert anna.ask("DELETE", f"/api/keys/{made.json()['id']}").status_code == 200
    assert httpx.get(f"{anna.url}/v1/models", headers=bearer).status_code == 401  # at once
    for wrong in ({}, {"name": ""}, {"name": "a", "days": 0}, {"name": "a", "role": "admin"}):
        assert anna.ask("POST", "/api/keys", json=wrong).status_code == 400, wrong


def test_a_key_makes_no_keys_and_changes_no_password(team):
    anna = team("anna")
    for method, path, body in (
        ("GET", "/api/keys", None),
        ("POST", "/api/keys", {"name": "more"}),
        ("DELETE", "/api/keys/x", None),
        ("PATCH", "/api/me", {"consent_training": True}),
        ("POST", "/api/me/password", {"old": PASSWORD, "new": "another password"}),
    ):
        answer = httpx.request(method, f"{anna.url}{path}", json=body, headers=anna.bearer)
        assert answer.status_code == 403, path


def test_a_password_is_changed(team):
    anna, elsewhere = team("anna"), team("anna")
    anna.sign_in()
    elsewhere.sign_in()
    change = {"old": "wrong", "new": "a new password"}
    assert anna.ask("POST", "/api/me/password", json=change).status_code == 403
    assert (
        anna.ask(
            "POST", "/api/me/password", json={**change, "old": PASSWORD, "new": "short"}
        ).status_code
        == 400
    )
    change["old"] = PASSWORD
    assert anna.ask("POST", "/api/me/password", json=change).status_code == 200
    assert anna.browser.get(f"{anna.url}/api/me").status_code == 200
    assert elsewhere.browser.get(f"{anna.url}/api/me").status_code == 401
    elsewhere.browser.cookies.clear()
    assert elsewhere.sign_in().status_code == 401
    assert elsewhere.sign_in("a new password").status_code == 303


def test_consent_and_settings_are_kept(team):
    anna = team("anna")
    anna.sign_in()
    body = {"consent_training": True, "settings": {"theme": "dark"}}
    changed = anna.ask("PATCH", "/api/me", json=body).json()
    assert (changed["consent_training"], changed["settings"]) == (True, {"theme": "dark"})
    for wrong in ({"role": "admin"}, {"tokens_per_day": 5}, {"settings": {"a": "x" * 20_000}}):
        assert anna.ask("PATCH", "/api/me", json=wrong).status_code == 400, wrong
    assert anna.ask("GET", "/api/me").json()["role"] == "user"


# --- usage and limits


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": ["ab", "cd"], "max_tokens": 5, "n": 2}),
        ("/chat/completions", CHAT),
    ],
)
def test_every_answer_leaves_a_row(team, path: str, body: dict, stream: bool):
    anna = team("anna")
    if path != "/chat/completions":
        body = {**body, "stream": stream}
    answer = httpx.post(f"{anna.url}{path}", json=body, headers=anna.bearer, timeout=30)
    assert answer.status_code == 200
    [row] = usage_rows(team)  # before the answer ends, so it is there now
    assert (row.status, row.model) == ("complete", "sft:d2")
    assert row.completion_tokens == (20 if "prompt" in body else 5)
    assert row.prompt_tokens > 0
    assert row.latency_s is not None
    assert row.first_token_s is not None
    assert 0 < row.first_token_s <= row.latency_s
    with team.database.read() as session:
        user, key = (
            session.get_one(UserRow, row.user_id),
            session.get_one(ApiKeyRow, row.api_key_id),
        )
        assert (user.name, key.name) == ("anna", "test")
        assert key.last_used_at is not None


def test_an_answer_that_nobody_reads_is_counted(team):
    anna = team("anna")
    team.server.engine.step_s = 0.02
    body = {**CHAT, "max_tokens": 200, "stream": True}
    with httpx.stream(
        "POST", f"{anna.url}/v1/chat/completions", json=body, headers=anna.bearer
    ) as answer:
        next(answer.iter_lines())
    end = time.monotonic() + 10
    while [row.status for row in usage_rows(team)] in ([], ["running"]):
        assert time.monotonic() < end
        time.sleep(0.02)
    [row] = usage_rows(team)
    assert row.status == "cancelled"
    assert row.completion_tokens < 200


def test_fifty_at_once_do_not_pass_a_quota(team):
    anna = team("anna")
    with team.database.write() as session:
        users.existing(session, "anna").tokens_per_day = 100
    prompt = {"prompt": "abcd", "max_tokens": 15}  # with the beginning 20 tokens

    def ask(_: int) -> int:
        url = f"{anna.url}/v1/completions"
        return httpx.post(url, json=prompt, headers=anna.bearer, timeout=60).status_code

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(ask, range(50)))
    assert sorted(set(statuses)) == [200, 429]
    assert statuses.count(200) == 5
    assert sum(row.prompt_tokens + row.completion_tokens for row in usage_rows(team)) == 100


def test_a_limit_says_when_to_come_back(team):
    anna = team("anna")
    with team.database.write() as session:
        users.existing(session, "anna").requests_per_minute = 1
    url = f"{anna.url}/v1/chat/completions"
    assert httpx.post(url, json=CHAT, headers=anna.bearer, timeout=30).status_code == 200
    answer = httpx.post(url, json=CHAT, headers=anna.bearer)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    berta = team("berta")
    assert httpx.post(url, json=CHAT, headers=berta.bearer, timeout=30).status_code == 200


def test_a_model_for_a_group(team):
    from nanochat.store.account_tables import MembershipRow, ModelRightRow

    with team.database.write() as session:
        group = users.add_group(session, "team")
        anna_id = users.existing(session, "anna").id
        session.add(MembershipRow(group_id=group.id, user_id=anna_id))
        session.add(ModelRightRow(group_id=group.id, model="base:d2"))
    body = {**CHAT, "model": "base:d2"}
    for name, status in (("anna", 200), ("berta", 403)):
        person = team(name)
        url = f"{person.url}/v1/chat/completions"
        answer = httpx.post(url, json=body, headers=person.bearer, timeout=30)
        assert answer.status_code == status, name


def test_my_usage_is_mine(team):
    anna, berta = team("anna"), team("berta")
    url = f"{anna.url}/v1/chat/completions"
    httpx.post(url, json=CHAT, headers=anna.bearer, timeout=30)
    [mine] = httpx.get(f"{anna.url}/api/usage", headers=anna.bearer).json()["data"]
    assert (mine["requests"], mine["completion_tokens"]) == (1, 5)
    assert httpx.get(f"{anna.url}/api/usage", headers=berta.bearer).json()["data"] == []


# --- without accounts, and with keys of a file


def test_without_accounts_it_is_one_person_on_this_machine(own_server, tmp_path: Path):
    storage = sqlite_storage(tmp_path)
    server = own_server(storage=storage)
    assert server.http.get(f"{server.url}/").status_code == 200
    me = server.http.get(f"{server.url}/api/me").json()
    assert (me["name"], me["role"], me["accounts"], me["csrf"]) == ("local", "admin", False, "")
    assert server.http.post(f"{server.url}/chat/completions", json=CHAT).status_code == 200
    elsewhere = {"Host": "chat.example.org"}
    assert server.http.get(f"{server.url}/api/me", headers=elsewhere).status_code == 403
    assert server.http.get(f"{server.url}/login").status_code == 303
    [row] = storage.database.reading(usage.totals, 0.0)
    assert (row.name, row.requests) == ("local", 1)
    keys = add_people(storage.database)  # from now on one has to sign in
    time.sleep(1.1)
    assert server.http.get(f"{server.url}/api/me").status_code == 401
    assert server.http.get(f"{server.url}/login").status_code == 200
    bearer = {"Authorization": f"Bearer {keys['anna']}"}
    assert server.http.get(f"{server.url}/api/me", headers=bearer).status_code == 200


def test_keys_of_a_file_go_on_working(own_server, tmp_path: Path):
    storage = sqlite_storage(tmp_path)
    key, other = "k" * 20, "o" * 20
    server = own_server(storage=storage, keys=(key, other))
    assert server.http.get(f"{server.url}/").status_code == 200  # the page asks for a key itself
    assert server.http.get(f"{server.url}/stats").json()["error"]["code"] == "no_api_key"
    bearer = {"Authorization": f"Bearer {key}"}
    assert server.http.get(f"{server.url}/v1/models", headers=bearer).status_code == 200
    first = server.http.get(f"{server.url}/api/me", headers=bearer).json()
    second = server.http.get(
        f"{server.url}/api/me", headers={"Authorization": f"Bearer {other}"}
    ).json()
    assert first["role"] == second["role"] == "user"
    assert first["id"] != second["id"]
    assert key not in json.dumps(first)
    add_people(storage.database)  # beside accounts too
    time.sleep(1.1)
    assert server.http.get(f"{server.url}/").status_code == 401
    assert server.http.get(f"{server.url}/v1/models", headers=bearer).status_code == 200


def test_a_session_that_is_used_stays(team):
    anna = team("anna")
    anna.browser.post(f"{anna.url}/login", data={"name": "anna", "password": PASSWORD})
    with team.database.write() as session:
        row = session.query(WebSessionRow).one()
        row.last_seen -= 1000
        before = row.last_seen
    anna.ask("GET", "/api/me")
    end = time.monotonic() + 5
    while True:
        with team.database.read() as session:
            if session.query(WebSessionRow).one().last_seen > before:
                break
        assert time.monotonic() < end
        time.sleep(0.02)


def test_behind_a_prefix_that_a_proxy_takes_away(own_server, tmp_path: Path):
    storage = sqlite_storage(tmp_path)
    add_people(storage.database)
    server = own_server(storage=storage, root_path="/chat")
    page = server.http.get(f"{server.url}/?c=1", headers={"Accept": "text/html"})
    assert page.headers["location"] == "/chat/login?next=%2F%3Fc%3D1"
    form = {"name": "anna", "password": PASSWORD, "next": "/?c=1"}
    answer = httpx.post(f"{server.url}/login", data=form)
    assert answer.headers["location"] == "/chat/?c=1"
    assert "Path=/chat;" in answer.headers["set-cookie"]
    assert server.http.get(f"{server.url}/health").status_code == 200
    assert server.http.get(f"{server.url}/stats").status_code == 401
