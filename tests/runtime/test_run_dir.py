"""Base directory, atomic files, environment record."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_a_home_directory(monkeypatch, home):
    """As in a container that is started for a number instead of a user."""
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR: is not set, and you have no home"):
        run_dir.base_dir()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "~/x")
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR=~/x: there is no home directory for ~"):
        run_dir.base_dir()


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    run_dir.check_writable(tmp_path / "not" / "there" / "yet")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for place, why in (
        (tmp_path / "file" / "x", "Not a directory"),
        (tmp_path / "file", "Not a directory"),
        (Path("/proc/x"), "/proc: "),  # nobody makes files there
    ):
        with pytest.raises(
            ValueError, match=f"^{place}: cannot be written .*{why}.*; take another"
        ):
            run_dir.check_writable(place, "take another")
    with pytest.raises(ValueError, match="link: is a link to .*gone, which is not there"):
        run_dir.check_writable(tmp_path / "link")


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


def test_one_at_a_time_fills_a_folder_and_no_lock_stays(tmp_path):
    """The lock's file is removed each time; without the second look at it, two would be inside at
    once.
    """
    folder, inside, crowd = tmp_path / "data", [], []

    def fill(number):
        for _ in range(60):
            with run_dir.locked(folder):
                inside.append(number)
                time.sleep(0.0002)
                crowd.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(fill, range(6)))
    assert crowd == [1] * 360 and os.listdir(tmp_path) == []


def test_a_failure_gives_the_lock_up(tmp_path):
    with pytest.raises(RuntimeError), run_dir.locked(tmp_path / "data"):
        raise RuntimeError
    (tmp_path / ".data.lock").touch()  # left by a process that was killed
    with run_dir.locked(tmp_path / "data"):
        assert os.listdir(tmp_path) == [".data.lock"]
    assert os.listdir(tmp_path) == []


def test_sha256_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert run_dir.sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_environment_is_json_and_works_outside_git(tmp_path, monkeypatch):
    env = json.loads(json.dumps(run_dir.environment()))
    assert env["cores"] >= 1 and env["torch"] and env["memory_bytes"] > 1e8 and env["cpu"]
    monkeypatch.setattr(run_dir, "ROOT", tmp_path)
    env = run_dir.environment()
    assert env["git_commit"] is None and env["git_dirty"] is None and run_dir.code_version()
