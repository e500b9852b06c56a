"""What is known to go wrong with log-ins and accounts, tried one by one: each is refused.

Quotas under fifty parallel requests are in test_accounts.py, slow bodies in test_limits.py.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import httpx
import pytest
from team import PASSWORD, filled, routes_of

from nanochat.serve.http.body import MAX_BODY_BYTES
from nanochat.serve.http.callers import COOKIE, CSRF_HEADER, PUBLIC_ROUTES
from nanochat.store import users
from nanochat.store.account_tables import ApiKeyRow, UserRow
from nanochat.store.chat_tables import (
    AttachmentRow,
    ConversationRow,
    FeedbackRow,
    FolderRow,
    MessageRow,
    ShareRow,
)

SECRET = "annas-own-secret"


def login(url: str, name: str = "anna", password: str = PASSWORD, **more: object) -> httpx.Response:
    form = {"name": name, "password": password}
    return httpx.post(f"{url}/login", data={**form, **more.pop("form", {})}, timeout=60, **more)


# --- session fixation


def test_a_session_that_an_attacker_chose_is_not_adopted(team):
    anna = team("anna")
    chosen = {"Cookie": f"{COOKIE}=chosen-by-the-attacker"}
    answer = login(anna.url, headers=chosen)
    assert answer.status_code == 303
    assert "chosen-by-the-attacker" not in answer.headers["set-cookie"]
    assert httpx.get(f"{anna.url}/api/me", headers=chosen).status_code == 401


def test_signing_in_over_a_session_ends_it(team):
    attacker, victim = team("berta"), team("anna")
    attacker.sign_in()
    planted = attacker.browser.cookies[COOKIE]
    victim.browser.cookies.set(COOKIE, planted)
    login_answer = victim.browser.post(
        f"{victim.url}/login", data={"name": "anna", "password": PASSWORD}
    )
    assert f"{COOKIE}={planted}" not in login_answer.headers["set-cookie"]
    assert attacker.browser.get(f"{attacker.url}/api/me").status_code == 401


# --- CSRF


@pytest.mark.parametrize("given", [None, "", "x", "other's"])
def test_what_another_page_makes_a_browser_send_changes_nothing(team, given: str | None):
    anna, berta = team("anna"), team("berta")
    anna.sign_in()
    berta.sign_in()
    token = berta.csrf if given == "other's" else given
    headers = {} if token is None else {CSRF_HEADER: token}
    for method, path in routes_of(team.server.server.config.app):
        if method in ("GET", "HEAD", "OPTIONS") or path in PUBLIC_ROUTES:
            continue
        answer = anna.browser.request(
            method, f"{anna.url}{filled(path)}", headers=headers, content=b"{}"
        )
        assert answer.status_code == 403, f"{method} {path}: {answer.status_code}"
        assert answer.json()["error"]["code"] == "csrf"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_form_of_another_page_signs_nobody_in(team, headers: dict):
    answer = login(team("anna").url, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_pages_of_others_do_not_get_at_cookies(team):
    anna = team("anna")
    anna.sign_in()
    for origin in ("https://evil.example", "http://localhost:9999", "null"):
        answer = anna.browser.get(f"{anna.url}/api/me", headers={"Origin": origin})
        assert "access-control-allow-credentials" not in answer.headers


# --- somebody else's ids


def belongings(team: Callable) -> dict[str, str]:
    """One of everything that is anna's -> its public id."""
    with team.database.write() as session:
        anna = users.existing(session, "anna")
        folder = FolderRow(user_id=anna.id, name=SECRET)
        conversation = ConversationRow(user_id=anna.id, title=SECRET, system_prompt=SECRET)
        session.add_all([folder, conversation])
        session.flush()
        message = MessageRow(conversation_id=conversation.id, role="user", content=SECRET)
        session.add(message)
        session.flush()
        rows = [
            AttachmentRow(
                user_id=anna.id,
                conversation_id=conversation.id,
                name=SECRET,
                media_type="text/plain",
                text=SECRET,
            ),
            ShareRow(conversation_id=conversation.id, audience={"users": [], "groups": []}),
            FeedbackRow(message_id=message.id, user_id=anna.id, comment=SECRET),
        ]
        session.add_all(rows)
        session.flush()
        key = session.query(ApiKeyRow).filter(ApiKeyRow.user_id == anna.id).one()
        rows += [folder, conversation, message, anna, key]
        return {type(row).__name__: row.public_id for row in rows}


def snapshot(team: Callable) -> dict[str, list[tuple]]:
    tables = (FolderRow, ConversationRow, MessageRow, AttachmentRow, ShareRow, FeedbackRow)
    with team.database.read() as session:
        return {
            table.__name__: [
                tuple(getattr(row, column.name) for column in table.__table__.columns)
                for row in session.query(table).order_by(table.id)
            ]
            for table in (*tables, ApiKeyRow, UserRow)
        }


BODIES = (
    {},
    {"title": "taken"},
    {"name": "taken"},
    {"content": "taken"},
    {"vote": 1},
    {"audience": {"users": ["berta"]}},
)


def test_nothing_of_anothers_is_reachable_by_any_id(team):
    """Every route, with every id that is anna's, asked by berta and by a program of hers."""
    ids = belongings(team)
    berta = team("berta")
    berta.sign_in()
    before = snapshot(team)
    tried = 0
    for method, path in routes_of(team.server.server.config.app):
        if path in PUBLIC_ROUTES or "{" not in path or path.startswith("/pages"):
            continue
        for public_id in ids.values():
            for body in BODIES if method != "GET" else BODIES[:1]:
                answer = berta.ask(method, filled(path, public_id), json=body)
                assert answer.status_code >= 400, f"{method} {path}: {answer.text[:200]}"
                assert answer.status_code < 500, f"{method} {path}: {answer.text[:200]}"
                assert SECRET not in answer.text
                tried += 1
        for public_id in ids.values():
            answer = httpx.request(
                method, f"{berta.url}{filled(path, public_id)}", json={}, headers=berta.bearer
            )
            assert answer.status_code >= 400
            assert SECRET not in answer.text
    assert tried > 0
    after = snapshot(team)
    assert {name: rows for name, rows in after.items() if rows != before[name]} in (
        {},
        {"ApiKeyRow": after["ApiKeyRow"]},  # when it was last used
    )


def test_ids_in_bodies_and_queries_are_those_of_the_caller(team):
    """And lists hold nothing of anybody else's."""
    ids = belongings(team)
    berta = team("berta")
    berta.sign_in()
    for method, path in routes_of(team.server.server.config.app):
        if "{" in path or path in PUBLIC_ROUTES or path in ("/logout", "/api/me/password"):
            continue
        if method == "GET":
            answer = berta.ask("GET", f"{path}?q={SECRET}&folder={ids['FolderRow']}")
            assert SECRET not in answer.text, path
        else:
            for public_id in ids.values():
                body = {
                    "conversation": public_id,
                    "message": public_id,
                    "folder": public_id,
                    "parent": public_id,
                    "attachments": [public_id],
                }
                answer = berta.ask(method, path, json=body)
                assert SECRET not in answer.text, path
    with team.database.read() as session:
        hers = users.existing(session, "berta").id
        for row in session.query(ConversationRow).filter(ConversationRow.user_id == hers):
            assert SECRET not in (row.title, row.system_prompt)


# --- markup, paths, SQL


def test_what_the_log_in_page_repeats_is_text(team):
    anna = team("anna")
    attack = '"><script>alert(1)</script>'
    page = httpx.get(f"{anna.url}/login", params={"next": attack})
    assert "<script" not in page.text
    page = login(anna.url, attack, form={"next": attack})
    assert page.status_code == 401
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/pages/../web_config.py",
        "/pages/..%2fweb_config.py",
        "/pages/%2e%2e%2fweb_config.py",
        "/pages/..%5cweb_config.py",
        "/pages/%252e%252e%252fweb_config.py",
        "/pages//etc/passwd",
        "/pages/%2fetc%2fpasswd",
        "/pages/.",
        "/pages/x.css%00.html",
        "/pages/" + "a" * 5000 + ".css",
    ],
)
def test_paths_lead_nowhere(team, path: str):
    anna = team("anna")
    with httpx.Client() as client:  # as it is written: clients tidy paths up
        answer = client.request("GET", anna.url, extensions={"target": path.encode()})
    assert answer.status_code in (401, 404, 414)


@pytest.mark.parametrize(
    "attack", ["' OR 1=1 --", "'; DROP TABLE users; --", "1 UNION SELECT 1", "%"]
)
def test_sql_is_data(team, attack: str):
    anna = team("anna")
    anna.sign_in()
    assert login(anna.url, attack, attack).status_code == 401
    bearer = {"Authorization": f"Bearer {attack}"}
    assert httpx.get(f"{anna.url}/api/me", headers=bearer).status_code == 401
    cookie = {"Cookie": f"{COOKIE}={attack}".replace(";", "%3B")}
    assert httpx.get(f"{anna.url}/api/me", headers=cookie).status_code == 401
    for method, path in routes_of(team.server.server.config.app):
        if "{" in path and path not in PUBLIC_ROUTES:
            answer = anna.ask(method, filled(path, httpx.QueryParams({"": attack})[""]), json={})
            assert 400 <= answer.status_code < 500, f"{method} {path}"
    assert anna.ask("GET", f"/api/usage?by={attack}").status_code == 400
    made = anna.ask("POST", "/api/keys", json={"name": attack})
    assert made.json()["name"] == attack
    with team.database.read() as session:
        assert len(users.listed(session)) == 3


# --- headers


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": "root", "X-Remote-User": "root", "Remote-User": "root"},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        {"X-Original-URL": "/health", "X-Rewrite-URL": "/health"},
        {"X-HTTP-Method-Override": "GET", "X-Method-Override": "OPTIONS"},
        {"Host": "localhost", "X-Forwarded-Host": "localhost"},
        {"Authorization": "Basic cm9vdDpyb290"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer undefined"},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Cookie": f"{COOKIE}="},
        {"Cookie": f"{COOKIE}=x; {COOKIE}=y"},
        {"Cookie": f"{COOKIE}=" + "x" * 10_000},
    ],
)
def test_headers_give_nobody_away(team, headers: dict):
    url = team("anna").url
    assert httpx.get(f"{url}/api/me", headers=headers).status_code == 401
    assert httpx.post(f"{url}/v1/chat/completions", headers=headers, json={}).status_code == 401


def test_two_keys_are_none(team):
    anna, root = team("anna"), team("root")
    both = [("Authorization", f"Bearer {anna.key}"), ("Authorization", f"Bearer {root.key}")]
    assert httpx.get(f"{anna.url}/api/me", headers=both).status_code == 401


def test_keys_and_sessions_do_not_stand_for_each_other(team):
    anna = team("anna")
    anna.sign_in()
    token = anna.browser.cookies[COOKIE]
    as_key = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{anna.url}/api/me", headers=as_key).status_code == 401
    as_session = {"Cookie": f"{COOKIE}={anna.key}"}
    assert httpx.get(f"{anna.url}/api/me", headers=as_session).status_code == 401
    for name in ("api_key", "key", "access_token", "token"):  # addresses end up in logs
        assert httpx.get(f"{anna.url}/api/me", params={name: anna.key}).status_code == 401


def test_what_is_kept_signs_nobody_in(team):
    """Whoever reads the database has hashes, none of which is a key, a token or a password."""
    anna = team("anna")
    with team.database.read() as session:
        key = session.query(ApiKeyRow).first()
        assert key is not None
        kept = users.existing(session, "anna").password_hash
        assert kept is not None
        assert (
            httpx.get(
                f"{anna.url}/api/me", headers={"Authorization": f"Bearer {key.key_hash}"}
            ).status_code
            == 401
        )
        assert login(anna.url, "anna", kept).status_code == 401


# --- guessing


def test_guessing_is_slowed_down(team):
    anna = team("anna")
    for _ in range(5):
        assert login(anna.url, "anna", "wrong").status_code == 401
    answer = login(anna.url, "anna", PASSWORD)  # even if it is right now
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert login(anna.url, "ANNA", PASSWORD).status_code == 429  # however it is written
    assert login(anna.url, "berta", PASSWORD).status_code == 303


def test_many_guesses_at_once_gain_nothing(team):
    anna = team("anna")
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        guesses = [pool.submit(login, anna.url, "anna", f"guess {n}") for n in range(30)]
    statuses = [guess.result().status_code for guess in guesses]
    assert statuses.count(401) <= 5
    assert statuses.count(429) >= 25


def test_many_names_from_one_address_are_slowed_down(team):
    anna = team("anna")
    statuses = [login(anna.url, f"name{n}", "wrong").status_code for n in range(22)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429


# --- sizes, and where a log-in leads


def test_bodies_that_are_too_large(team):
    anna = team("anna")
    anna.sign_in()
    large = b"name=" + b"x" * MAX_BODY_BYTES
    assert httpx.post(f"{anna.url}/login", content=large, timeout=60).status_code == 413
    assert anna.ask("POST", "/api/keys", content=large).status_code == 413
    many = "&".join(f"f{n}=1" for n in range(1000))
    assert httpx.post(f"{anna.url}/login", content=many).status_code == 400
    assert httpx.post(f"{anna.url}/login", content=b"name=\xff\xfe").status_code in (400, 401)


@pytest.mark.parametrize(
    "place",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%5cevil.example/../..//evil.example",
        "http:evil.example",
        "javascript:alert(1)",
        " //evil.example",
        "/\t/evil.example",
        "/\r\nSet-Cookie: a=b",
        "",
    ],
)
def test_a_log_in_leads_nowhere_else(team, place: str):
    answer = login(team("anna").url, form={"next": place})
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    joined = httpx.URL("http://here.example").join(location)
    assert joined.host == "here.example"
    assert answer.headers.get_list("set-cookie")[0].startswith(COOKIE)
    assert len(answer.headers.get_list("set-cookie")) == 1


def test_a_person_is_led_back_to_where_they_wanted_to_go(team):
    anna = team("anna")
    wanted = "/?conversation=abc&x=1"
    page = anna.browser.get(f"{anna.url}{wanted}", headers={"Accept": "text/html"})
    assert page.status_code == 303
    place = httpx.URL(page.headers["location"]).params["next"]
    assert login(anna.url, form={"next": place}).headers["location"] == wanted
