"""Base directory, atomic files, environment record."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest

from nanochat.runtime import run_dir


def test_base_dir_is_made_when_asked_for(base_dir):
    assert not base_dir.exists()
    assert run_dir.base_dir() == base_dir and base_dir.is_dir()


def test_base_dir_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "file" / "x"))
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR=.*name a folder you can write"):
        run_dir.base_dir()


def test_default_base_dir_is_under_home(tmp_path, monkeypatch):
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_dir.base_dir() == tmp_path / ".cache" / "nanochat"


def test_atomic_write_makes_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    run_dir.atomic_write(path, "one")
    run_dir.atomic_write(path, b"two")
    assert path.read_text() == "two" and os.listdir(path.parent) == ["b.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~run_dir._umask()


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def no_space(handle):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError):
        run_dir.atomic_write(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["b.txt"]


def test_sha256_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert run_dir.sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_environment_is_json_and_works_outside_git(tmp_path, monkeypatch):
    env = json.loads(json.dumps(run_dir.environment()))
    assert env["cores"] >= 1 and env["torch"] and env["memory_bytes"] > 1e8 and env["cpu"]
    monkeypatch.setattr(run_dir, "ROOT", tmp_path)
    env = run_dir.environment()
    assert env["git_commit"] is None and env["git_dirty"] is None and run_dir.code_version()
