"""A server with accounts under test: three people, each with a browser and a key."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fastapi.routing import iter_route_contexts

from nanochat.serve.http.callers import COOKIE, CSRF_HEADER
from nanochat.serve.work.storage import Storage
from nanochat.store import api_keys, users
from nanochat.store.database import Database
from nanochat.store.passwords import hash_password
from nanochat.store.upgrading import upgrade

PASSWORD = "correct horse battery"
PASSWORD_HASH = hash_password(PASSWORD)  # once: it is slow on purpose
PEOPLE = {"anna": "user", "berta": "user", "root": "admin"}


@dataclass
class Person:
    """Somebody with an account: `browser` is signed in when `sign_in` was called."""

    name: str
    url: str
    key: str
    browser: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))
    csrf: str = ""

    def sign_in(self, password: str = PASSWORD, **fields: str) -> httpx.Response:
        form = {"name": self.name, "password": password, **fields}
        answer = self.browser.post(f"{self.url}/login", data=form)
        if COOKIE in self.browser.cookies:
            self.csrf = self.browser.get(f"{self.url}/api/me").json()["csrf"]
        return answer

    def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        """By the browser, with the CSRF token."""
        headers = {CSRF_HEADER: self.csrf}
        return self.browser.request(method, f"{self.url}{path}", headers=headers, **more)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def new_storage(url: str) -> Storage:
    """An empty database with our tables."""
    database = Database(url)
    upgrade(database)
    return Storage(database)


def sqlite_storage(folder: Path) -> Storage:
    return new_storage(f"sqlite:///{folder / 'team.db'}")


def add_people(database: Database) -> dict[str, str]:
    """The accounts of PEOPLE -> an API key of each."""
    keys = {}
    with database.write() as session:
        for name, role in PEOPLE.items():
            user = users.add(session, name, role=role, password_hash=PASSWORD_HASH)
            keys[name] = api_keys.make(session, user.id, "test")[1]
    return keys


def routes_of(app: object) -> list[tuple[str, str]]:
    """(method, path) of every route, whatever routers they come from."""
    found = []
    for route in iter_route_contexts(app.routes):  # type: ignore[attr-defined]
        for method in sorted(route.methods or ()):
            if method != "HEAD":
                found.append((method, str(route.path)))
    return found


def filled(path: str, value: str = "x") -> str:
    """A path with something in place of its parameters."""
    return re.sub(r"{[^}]+}", value, path)
