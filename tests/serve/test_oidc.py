"""Signing in with an OpenID Connect provider: a real one on loopback, and one that lies."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from team import sqlite_storage

from nanochat.serve.http.callers import COOKIE
from nanochat.serve.http.oidc_settings import OIDCSettings
from nanochat.store import users

pytest.importorskip("authlib", reason="the extra oidc is not installed")
from joserfc import jwt
from joserfc.jwk import RSAKey


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """The address of a provider that knows anna@example.org, and others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mock = pytest.importorskip(
            "oidc_provider_mock", reason="oidc-provider-mock is not installed (dev extra)"
        )
    with mock.run_server_in_thread(require_nonce=True) as server:
        url = f"http://localhost:{server.server_port}"
        for name, domain, verified in (
            ("anna", "example.org", True),
            ("eve", "evil.example", True),
            ("mallory", "example.org", False),
        ):
            email = f"{name}@{domain}"
            claims = {"email": email, "email_verified": verified, "preferred_username": name}
            httpx.put(f"{url}/users/{name}", json=claims).raise_for_status()
        yield url


def settings(issuer: str, *domains: str) -> OIDCSettings:
    return OIDCSettings(
        issuer=issuer,
        client_id="nanochat",
        client_secret="a secret of ours",
        domains=domains or ("example.org",),
    )


@pytest.fixture
def serve(own_server: Callable, tmp_path: Path) -> Callable:
    def start(oidc: OIDCSettings) -> Any:
        storage = sqlite_storage(tmp_path)
        server = own_server(storage=storage, oidc=oidc)
        server.database = storage.database
        return server

    return start


def to_callback(url: str, browser: httpx.Client, sub: str, place: str = "/") -> str:
    """Sign in at the provider; the address that it sends the browser back to."""
    answer = browser.get(f"{url}/login/oidc", params={"next": place})
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    query = parse_qs(urlsplit(address).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [f"{url}/login/oidc/callback"]
    back = httpx.post(address, data={"sub": sub})
    assert back.status_code == 302, back.text
    return back.headers["location"]


def test_a_person_signs_in_at_the_provider(serve, provider: str):
    server = serve(settings(provider))
    with httpx.Client(timeout=30) as browser:
        assert browser.get(f"{server.url}/api/me").status_code == 401  # though there is no account
        assert "login/oidc" in browser.get(f"{server.url}/login").text
        back = to_callback(server.url, browser, "anna", "/?c=1")
        answer = browser.get(back)
        assert (answer.status_code, answer.headers["location"]) == (303, "/?c=1")
        me = browser.get(f"{server.url}/api/me").json()
        assert (me["name"], me["role"]) == ("anna", "user")
        assert "nanochat_oidc" not in browser.cookies
        replayed = browser.get(back)  # the same code again
        assert replayed.status_code == 401
    with httpx.Client(timeout=30) as browser:  # the second time it is the same user
        browser.get(to_callback(server.url, browser, "anna"))
        assert browser.get(f"{server.url}/api/me").json()["id"] == me["id"]


def test_who_may_not(serve, provider: str):
    server = serve(settings(provider))
    for sub in ("eve", "mallory", "stranger"):
        with httpx.Client(timeout=30) as browser:
            answer = browser.get(to_callback(server.url, browser, sub))
            assert answer.status_code == 403, sub
            assert COOKIE not in browser.cookies
    with server.database.read() as session:
        assert users.listed(session) == []


def test_an_account_of_the_same_name_is_not_taken_over(serve, provider: str):
    server = serve(settings(provider))
    with server.database.write() as session:
        users.add(session, "anna", role="admin")
    with httpx.Client(timeout=30) as browser:
        browser.get(to_callback(server.url, browser, "anna"))
        me = browser.get(f"{server.url}/api/me").json()
    assert (me["name"], me["role"]) == ("anna-2", "user")


def test_a_disabled_user_stays_out(serve, provider: str):
    server = serve(settings(provider))
    with httpx.Client(timeout=30) as browser:
        browser.get(to_callback(server.url, browser, "anna"))
    with server.database.write() as session:
        users.set_disabled(session, users.existing(session, "anna"), True)
    with httpx.Client(timeout=30) as browser:
        assert browser.get(to_callback(server.url, browser, "anna")).status_code == 403


def test_a_log_in_that_another_browser_began(serve, provider: str):
    """Log-in CSRF: an attacker's code must not sign a victim in as the attacker."""
    server = serve(settings(provider))
    with httpx.Client(timeout=30) as attacker, httpx.Client(timeout=30) as victim:
        back = to_callback(server.url, attacker, "anna")
        assert victim.get(back).status_code == 401
        victim.get(f"{server.url}/login/oidc")  # one of their own, with another state
        assert victim.get(back).status_code == 401
        assert COOKIE not in victim.cookies
    for cookie in ("x", "e30=", "bm9wZQ=="):
        headers = {"Cookie": f"nanochat_oidc={cookie}"}
        place = f"{server.url}/login/oidc/callback?code=x&state="
        assert httpx.get(place, headers=headers).status_code == 401


def test_the_provider_says_no(serve, provider: str):
    server = serve(settings(provider))
    with httpx.Client(timeout=30) as browser:
        address = browser.get(f"{server.url}/login/oidc").headers["location"]
        back = httpx.post(address, data={"action": "deny"}).headers["location"]
        answer = browser.get(back)
        assert answer.status_code == 401
        assert "log-in failed" in answer.text


def test_a_provider_that_is_not_there(serve):
    server = serve(settings("http://127.0.0.1:1"))
    answer = httpx.get(f"{server.url}/login/oidc", timeout=30)
    assert answer.status_code == 502
    assert "does not answer" in answer.text


def unpadded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Liar:
    """A provider whose tokens say what a test wants them to. `claims` change the sound ones; None
    takes one away.
    """

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
        self.signing: Any = self.key
        self.header = {"alg": "RS256", "kid": "1"}
        self.sign: Callable[[bytes], bytes] | None = None  # in another way than the library's
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.nonce = ""
        liar = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(liar.about() if "well-known" in self.path else liar.keys())

            def do_POST(self) -> None:
                self.answer({"access_token": "a", "token_type": "Bearer", "id_token": liar.token()})

            def answer(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def about(self) -> dict[str, Any]:
        places = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        return {"issuer": self.url, **{p: f"{self.url}/{p}" for p in places}, **self.metadata}

    def keys(self) -> dict[str, Any]:
        return {"keys": [self.key.as_dict(private=False)]}

    def token(self) -> str:
        sound = {
            "iss": self.url,
            "aud": "nanochat",
            "sub": "anna",
            "exp": time.time() + 60,
            "nonce": self.nonce,
            "email": "anna@example.org",
            "email_verified": True,
        }
        claims = {k: v for k, v in {**sound, **self.claims}.items() if v is not None}
        if self.sign is None:
            return jwt.encode(self.header, claims, self.signing)
        head, body = (json.dumps(part).encode() for part in (self.header, claims))
        text = b".".join(map(unpadded, (head, body)))
        return (text + b"." + unpadded(self.sign(text))).decode()


@pytest.fixture(scope="module")
def liar_server() -> Iterator[Liar]:
    liar = Liar()
    yield liar
    liar.server.shutdown()


LIES: dict[str, dict[str, Any]] = {
    "sound": {},
    "another issuer": {"iss": "https://evil.example"},
    "for another program": {"aud": "other"},
    "through another program": {"azp": "other"},
    "expired": {"exp": 1},
    "without an end": {"exp": None},
    "of another log-in": {"nonce": "x"},
    "without a nonce": {"nonce": None},
    "without a subject": {"sub": None},
    "an address as text": {"email_verified": "true"},
}


def try_liar(serve, liar: Liar) -> int:
    server = serve(settings(liar.url))
    with httpx.Client(timeout=30) as browser:
        answer = browser.get(f"{server.url}/login/oidc")
        if answer.status_code != 303:
            return answer.status_code
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        liar.nonce = query["nonce"][0]
        place = f"{server.url}/login/oidc/callback"
        return browser.get(place, params={"code": "x", "state": query["state"][0]}).status_code


@pytest.mark.parametrize("lie", LIES)
def test_claims_that_do_not_hold(serve, liar_server: Liar, lie: str):
    liar_server.claims = LIES[lie]
    expected = {"sound": 303, "an address as text": 403}.get(lie, 401)
    assert try_liar(serve, liar_server) == expected


def test_signatures_that_do_not_hold(serve, liar_server: Liar):
    """Another key's; the public key taken for a shared one; none at all."""
    liar_server.claims = {}
    public = liar_server.key.as_pem(private=False)
    try:
        liar_server.signing = RSAKey.generate_key(2048, {"kid": "1"})
        assert try_liar(serve, liar_server) == 401
        liar_server.sign = lambda text: hmac.new(public, text, "sha256").digest()
        liar_server.header = {"alg": "HS256", "kid": "1"}
        assert try_liar(serve, liar_server) == 401
        liar_server.sign = lambda text: b""
        liar_server.header = {"alg": "none"}
        assert try_liar(serve, liar_server) == 401
    finally:
        liar_server.signing, liar_server.sign = liar_server.key, None
        liar_server.header = {"alg": "RS256", "kid": "1"}


def test_a_provider_that_calls_itself_otherwise(serve, liar_server: Liar):
    liar_server.metadata = {"issuer": "https://evil.example"}
    try:
        assert try_liar(serve, liar_server) == 502
    finally:
        liar_server.metadata = {}
