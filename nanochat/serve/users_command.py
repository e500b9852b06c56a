"""`nanochat users`: who may sign in, with which role and limits."""

from __future__ import annotations

import getpass
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from nanochat.config import Positional, Short


@dataclass(kw_only=True)
class DatabaseConfig:
    """Settings of every command that opens the database."""

    database: str | None = None
    """sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME (default: $NANOCHAT_DATABASE, else
    nanochat.db in the base directory).
    """


@dataclass(kw_only=True)
class UsersListConfig(DatabaseConfig):
    """Everybody, with role, limits and what they used today."""


@dataclass(kw_only=True)
class UsersAddConfig(DatabaseConfig):
    """Make an account. The password is asked for, or is the first line of what is piped in."""

    name: Positional[str]
    """What the user signs in with."""
    role: Literal["user", "admin"] = "user"
    """An admin sees users, usage and feedback."""
    no_password: bool = False
    """For programs: an account with API keys only, made with `nanochat users key`."""
    tokens_per_day: int | None = None
    """Tokens in and out that the user may take in a UTC day."""
    requests_per_minute: int | None = None
    """Requests that the user may send within a minute."""


@dataclass(kw_only=True)
class UsersDisableConfig(DatabaseConfig):
    """Keep a user out from now on; nothing of theirs is removed."""

    name: Positional[str]
    """Who."""
    enable: bool = False
    """Let the user in again."""


@dataclass(kw_only=True)
class UsersPasswdConfig(DatabaseConfig):
    """Set a password, asked for or piped in, and sign the user out everywhere."""

    name: Positional[str]
    """Whose."""


@dataclass(kw_only=True)
class UsersRoleConfig(DatabaseConfig):
    """Make an admin of a user, or a user of an admin."""

    name: Positional[str]
    """Who."""
    role: Positional[Literal["user", "admin"]]
    """What they become."""


@dataclass(kw_only=True)
class UsersLimitsConfig(DatabaseConfig):
    """Set what a user may take; a limit that is left out does not apply any more."""

    name: Positional[str]
    """Who."""
    tokens_per_day: int | None = None
    """Tokens in and out in a UTC day."""
    requests_per_minute: int | None = None
    """Requests within a minute."""


@dataclass(kw_only=True)
class UsersKeyConfig(DatabaseConfig):
    """Make an API key for a user and print it, this once."""

    name: Positional[str]
    """Whose."""
    label: Annotated[str, Short("-l")] = "command line"
    """What the key is called in the user's list."""
    days: int | None = None
    """Until it expires; never without."""


def users_list(cfg: UsersListConfig) -> str:
    """A table of everybody."""
    from nanochat.store import usage, users
    from nanochat.store.upgrading import opened

    rows = [("name", "role", "state", "since", "tokens today", "a day", "requests a minute")]
    with opened(cfg.database) as database, database.read() as session:
        for user in users.listed(session):
            state = "disabled" if user.disabled else "signs in"
            if user.kind != "account":
                state = "no account"
            elif user.password_hash is None:
                state = state if user.disabled else "keys" if not user.oidc_subject else "OpenID"
            rows.append(
                (
                    user.name,
                    user.role,
                    state,
                    time.strftime("%Y-%m-%d", time.gmtime(user.created_at)),
                    str(usage.used_today(session, user.id)),
                    limit(user.tokens_per_day),
                    limit(user.requests_per_minute),
                )
            )
    return table(rows)


def users_add(cfg: UsersAddConfig) -> str:
    from nanochat.store import users
    from nanochat.store.upgrading import opened

    name = users.checked_name(cfg.name)
    password_hash = None if cfg.no_password else ask_password(name)
    with opened(cfg.database) as database, database.write() as session:
        user = users.add(session, name, role=cfg.role, password_hash=password_hash)
        users.set_limits(
            user,
            tokens_per_day=cfg.tokens_per_day,
            requests_per_minute=cfg.requests_per_minute,
        )
    said = f"{name} is {'an admin' if cfg.role == 'admin' else 'a user'} now"
    return f"{said}; make a key with: nanochat users key {name}" if cfg.no_password else said


def users_disable(cfg: UsersDisableConfig) -> str:
    from nanochat.store import users
    from nanochat.store.upgrading import opened

    with opened(cfg.database) as database, database.write() as session:
        user = users.existing(session, cfg.name)
        users.set_disabled(session, user, not cfg.enable)
        return f"{user.name} {'may sign in again' if cfg.enable else 'is kept out from now on'}"


def users_passwd(cfg: UsersPasswdConfig) -> str:
    from nanochat.store import users
    from nanochat.store.upgrading import opened

    with opened(cfg.database) as database:
        with database.read() as session:
            name = users.existing(session, cfg.name).name
        password_hash = ask_password(name)
        with database.write() as session:
            users.set_password(session, users.existing(session, name), password_hash)
    return f"{name} has a new password, and has to sign in again"


def users_role(cfg: UsersRoleConfig) -> str:
    from nanochat.store import users
    from nanochat.store.upgrading import opened

    with opened(cfg.database) as database, database.write() as session:
        user = users.existing(session, cfg.name)
        users.set_role(session, user, cfg.role)
        return f"{user.name} is {'an admin' if cfg.role == 'admin' else 'a user'} now"


def users_limits(cfg: UsersLimitsConfig) -> str:
    from nanochat.store import users
    from nanochat.store.upgrading import opened

    with opened(cfg.database) as database, database.write() as session:
        user = users.existing(session, cfg.name)
        users.set_limits(
            user,
            tokens_per_day=cfg.tokens_per_day,
            requests_per_minute=cfg.requests_per_minute,
        )
        return (
            f"{user.name}: {limit(user.tokens_per_day)} tokens a day, "
            f"{limit(user.requests_per_minute)} requests a minute"
        )


def users_key(cfg: UsersKeyConfig) -> str:
    """The key alone, so that `KEY=$(nanochat users key anna)` works."""
    from nanochat.store import api_keys, users
    from nanochat.store.upgrading import opened

    with opened(cfg.database) as database, database.write() as session:
        user = users.existing(session, cfg.name)
        return api_keys.make(session, user.id, cfg.label, days=cfg.days)[1]


def ask_password(name: str) -> str:
    """The hash of a password that is typed twice, or is the first line of a pipe. ValueError."""
    from nanochat.store.passwords import hash_password

    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            hint = secrets.token_urlsafe(12)
            raise ValueError(
                f"standard input holds no password; pipe one in, e.g. `echo {hint} | nanochat ...`"
            )
        return hash_password(password)
    password = getpass.getpass(f"Password for {name}: ")
    password_hash = hash_password(password)
    if getpass.getpass("Once more: ") != password:
        raise ValueError("the two passwords differ; try again")
    return password_hash


def limit(value: int | None) -> str:
    return "no limit" if value is None else str(value)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns of text, as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
