"""Accepted feedback as files that training takes as they are."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nanochat.dataset.conversations import scan_conversations
from nanochat.feedback.feedback_export import FeedbackExportConfig, exports, write_export
from nanochat.store import feedback_rows as feedback


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_corrected_answers_come_first_and_only_they_are_learned(given, tmp_path):
    history = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
    ]
    given("praised", "good", vote=1)
    given("wrong", "bad", "right", before=history)
    given("edited", "bad", "better", decision="edit")
    given("only a thumb down", "bad")
    given("rejected", "bad", "no", decision="reject")
    given("not yet looked at", "bad", "c", decision=None)
    given("no consent", "bad", "c", user="bob", consent=False)
    made = write_export(FeedbackExportConfig(out=tmp_path / "out", database=given.url))
    rows = lines(made.conversations_file)
    assert [row["messages"][-2]["content"] for row in rows] == ["wrong", "edited", "praised"]
    assert [row["messages"][-1]["content"] for row in rows] == ["right", "better", "good"]
    assert rows[0]["messages"][2] == {**history[2], "train": False}
    read = scan_conversations(made.conversations_file)
    assert not read.problems and not read.unused and len(read.conversations) == 3
    pairs = lines(tmp_path / "out" / "preferences.jsonl")
    assert pairs[0] == {
        "prompt": [*history, {"role": "user", "content": "wrong"}],
        "chosen": [{"role": "assistant", "content": "right"}],
        "rejected": [{"role": "assistant", "content": "bad"}],
    }
    assert len(pairs) == 2
    assert made.left_out == {
        "from users who have not agreed to training": 1,
        "that say an answer is wrong and not what is right": 1,
    }
    assert "3 conversations (2 corrected, 1 praised)" in made.lines()[0]


def test_who_serves_only_themselves_has_agreed(given, tmp_path):
    given("q", "a", "c", user="local", consent=False)
    config = FeedbackExportConfig(out=tmp_path / "out", database=given.url)
    with pytest.raises(ValueError, match="1 from users who have not agreed"):
        write_export(config)
    with given.database.write() as session:
        from nanochat.store import users

        users.named(session, "local").kind = "local"
    assert len(write_export(config).conversations) == 1


def test_personal_numbers_go_unless_told_otherwise(given, tmp_path):
    secret = "mail me@example.org or +49 171 1234567"
    given(f"q {secret}", f"a {secret}", f"c {secret}")
    for redact in (True, False):
        config = FeedbackExportConfig(out=tmp_path / str(redact), database=given.url, redact=redact)
        made = write_export(config)
        for name in ("conversations.jsonl", "preferences.jsonl"):
            text = (made.folder / name).read_text()
            assert ("example.org" in text, "1234567" in text) == (not redact, not redact)
        assert made.redacted == ({"e-mail": 3, "phone": 3} if redact else {})
    assert (tmp_path / "True").stat().st_mode & 0o077 == 0


def test_what_is_older_than_it_may_be_is_deleted(given, base_dir):
    given("old", "a", "c", age_s=11 * 86_400)
    given("young", "a", "c", age_s=9 * 86_400)
    stale = exports() / "2020-01-01-000000"
    stale.mkdir(parents=True)
    os.utime(stale, (0, time.time() - 11 * 86_400))
    made = write_export(FeedbackExportConfig(database=given.url, retain_days=10))
    assert made.expired == 1 and not stale.exists() and made.folder.parent == exports()
    assert [row["messages"][0]["content"] for row in made.conversations] == ["young"]
    with given.database.read() as session:
        assert len(feedback.accepted(session)) == 1
    assert FeedbackExportConfig(retain_days=0).problems()


def test_nothing_accepted_is_said_and_nothing_written(given, base_dir):
    given("q", "a", "c", decision=None)
    with pytest.raises(ValueError, match="/admin/feedback"):
        write_export(FeedbackExportConfig(database=given.url))
    assert not exports().exists()
