"""Files that are whole or not there, and locks."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nanochat.runtime.files import atomic_write, locked, sha256_file


def test_atomic_write_makes_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    atomic_write(path, "one")
    atomic_write(path, b"two")
    assert path.read_text() == "two" and os.listdir(path.parent) == ["b.txt"]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()  # mkstemp would make it private
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def no_space(handle):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError):
        atomic_write(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["b.txt"]


def test_one_at_a_time_fills_a_folder_and_no_lock_stays(tmp_path):
    """The lock's file is removed each time; without the second look at it, two would be inside at
    once.
    """
    folder, inside, crowd = tmp_path / "data", [], []

    def fill(number):
        for _ in range(60):
            with locked(folder):
                inside.append(number)
                time.sleep(0.0002)
                crowd.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(fill, range(6)))
    assert crowd == [1] * 360 and os.listdir(tmp_path) == []


def test_a_failure_gives_the_lock_up(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "data"):
        raise RuntimeError
    (tmp_path / ".data.lock").touch()  # left by a process that was killed
    with locked(tmp_path / "data"):
        assert os.listdir(tmp_path) == [".data.lock"]
    assert os.listdir(tmp_path) == []


def test_sha256_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
