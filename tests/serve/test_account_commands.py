"""`nanochat users`, `usage` and `db`, as people type them."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from team import PASSWORD

from nanochat.cli import run
from nanochat.store import api_keys, users
from nanochat.store.account_tables import UsageRow
from nanochat.store.database import Database, default_url
from nanochat.store.passwords import password_fits
from nanochat.store.upgrading import opened

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nanochat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command with something piped in -> what it prints."""

    def call(*words: str, piped: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(piped))
        return run(words)

    return call


def test_accounts_are_made_and_changed(nanochat):
    made = nanochat("users", "add", "Anna", "--role", "admin", piped=PASSWORD + "\n")
    assert made == "anna is an admin now"
    nanochat("users", "add", "bot", "--no-password", "--requests-per-minute", "60")
    listed = nanochat("users", "list")
    assert re.search(r"^anna +admin +signs in ", listed, re.MULTILINE)
    assert re.search(r"^bot +user +keys .* 0 +no limit +60$", listed, re.MULTILINE)
    assert PASSWORD not in listed
    assert nanochat("users", "role", "bot", "admin") == "bot is an admin now"
    assert "kept out" in nanochat("users", "disable", "anna")
    assert "disabled" in nanochat("users", "list")
    assert "may sign in again" in nanochat("users", "disable", "anna", "--enable")
    assert "5 tokens a day, no limit" in nanochat("users", "limits", "bot", "--tokens-per-day", "5")
    assert "new password" in nanochat("users", "passwd", "anna", piped="another pass phrase\n")
    key = nanochat("users", "key", "bot", "--label", "nightly", "--days", "7")
    with opened(None) as database, database.read() as session:
        assert password_fits("another pass phrase", users.existing(session, "anna").password_hash)
        found = api_keys.find(session, key)
        assert found is not None
        assert (found[0].name, found[1].name) == ("nightly", "bot")


@pytest.mark.parametrize(
    ("words", "piped", "said"),
    [
        ("users add anna", "", "holds no password"),
        ("users add anna", "short\n", "10 to 1024 characters"),
        ("users add a/b", PASSWORD, "letters, digits"),
        ("users add anna --role king", PASSWORD, "role"),
        ("users add anna --no-password --tokens-per-day -1", "", "tokens_per_day=-1"),
        ("users add", "", "name"),
        ("users role nobody admin", "", "no such user"),
        ("users disable nobody", "", "no such user"),
        ("users passwd nobody", PASSWORD, "no such user"),
        ("users key nobody", "", "no such user"),
        ("users disable root", "", "last admin"),
        ("users role root user", "", "last admin"),
        ("users add root", PASSWORD, "such a user already"),
        ("users list --database mysql://a/b", "", "not supported"),
        ("users forget anna", "", "unknown command"),
        ("usage --since yesterday", "", "--since=yesterday"),
        ("usage --since 2026-13-01", "", "--since"),
        ("usage --hourly-rate nan", "", "--hourly-rate"),
        ("usage --by colour", "", "by"),
        ("db restore nowhere.gz", "", "nowhere.gz"),
        ("db backup /dev/null/copy.gz", "", "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said(nanochat, words: str, piped: str, said: str, capsys):
    nanochat("users", "add", "root", "--role", "admin", "--no-password")
    with pytest.raises((ValueError, SystemExit)) as caught:  # of the command, or of its flags
        nanochat(*words.split(), piped=piped)
    assert said in f"{caught.value} {capsys.readouterr().err}"


def test_usage_for_people_and_for_spreadsheets(nanochat):
    assert "nothing was asked since" in nanochat("usage")
    with opened(None) as database, database.write() as session:
        anna = users.add(session, "anna")
        session.add(
            UsageRow(
                user_id=anna.id,
                model="=HYPERLINK(1)",
                day=time.strftime("%Y-%m-%d", time.gmtime()),
                created_at=time.time() - 7200,
                prompt_tokens=90,
                completion_tokens=10,
                latency_s=1.5,
                status="complete",
            )
        )
    said = nanochat("usage", "--hourly-rate", "3")
    assert re.search(r"^anna +1 +90 +10 +1.50 + +6.0.$", said, re.MULTILINE)
    assert re.search(r"2\.0 hours at 3 since the first request: 6\.0., 60\d{3}\.\d\d a mill", said)
    rows = list(csv.reader(io.StringIO(nanochat("usage", "--by", "model", "--csv"))))
    assert rows[0][:2] == ["model", "requests"]
    assert rows[1][0] == "'=HYPERLINK(1)"  # no formula in a spreadsheet
    assert nanochat("usage", "--since", "1h") != said
    day = time.strftime("%Y-%m-%d", time.gmtime())
    assert day in nanochat("usage", "--by", "day", "--since", "2020-01-01")


def test_a_backup_moves_to_another_database(nanochat, database_url, tmp_path: Path):
    nanochat("users", "add", "anna", "--no-password")
    copy, other = str(tmp_path / "copy.gz"), database_url()
    assert "1 rows" in nanochat("db", "backup", copy)
    assert "1 rows" in nanochat("db", "restore", copy, "--database", other)
    assert "anna" in nanochat("users", "list", "--database", other)
    with pytest.raises(ValueError, match="not empty"):
        nanochat("db", "restore", copy)
    with pytest.raises(ValueError, match="there already"):
        nanochat("db", "backup", copy)
    assert "those of this version" in nanochat("db", "upgrade")


def test_an_empty_database_is_not_copied(nanochat, tmp_path: Path):
    with pytest.raises(ValueError, match="empty, nothing to copy"):
        nanochat("db", "backup", str(tmp_path / "copy.gz"))


def test_the_address_may_be_in_a_variable(nanochat, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DATABASE", f"sqlite:///{tmp_path}/named.db")
    nanochat("users", "add", "anna", "--no-password")
    assert (tmp_path / "named.db").exists()
    assert not Path(default_url().removeprefix("sqlite:///")).exists()
    assert Database(f"sqlite:///{tmp_path}/named.db").reading(users.any_accounts)


@pytest.mark.parametrize(
    ("package", "commands"),
    [
        ("sqlalchemy", ("users list", "chat-web", "usage")),
        ("fastapi", ("chat-web",)),
        ("alembic", ("db upgrade",)),
    ],
)
def test_a_missing_extra_is_named(package: str, commands: tuple[str, ...]):
    code = (
        f"import sys; sys.modules[{package!r}] = None; from nanochat.cli import main; "
        "main(sys.argv[1:])"
    )
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-c", code, *words.split()],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 2, done.stderr
        assert "pip install 'nanochat[serve]'" in done.stderr
        assert done.stderr.count("\n") == 1
