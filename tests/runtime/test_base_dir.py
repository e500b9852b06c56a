"""The base directory, homes, and places that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanochat.runtime import base_dir as places


def test_base_dir_is_made_when_asked_for(base_dir):
    assert not base_dir.exists()
    assert places.base_dir() == base_dir and base_dir.is_dir()


def test_base_dir_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "file" / "x"))
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR=.*name a folder you can write"):
        places.base_dir()


@pytest.mark.parametrize("home", [None, ""])
def test_a_user_without_a_home_directory(monkeypatch, home):
    """As in a container that is started for a number instead of a user."""
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR: is not set, and you have no home"):
        places.base_dir()
    monkeypatch.setenv("NANOCHAT_BASE_DIR", "~/x")
    with pytest.raises(ValueError, match="NANOCHAT_BASE_DIR=~/x: there is no home directory for ~"):
        places.base_dir()


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path):
    places.check_writable(tmp_path / "not" / "there" / "yet")
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
            places.check_writable(place, "take another")
    with pytest.raises(ValueError, match="link: is a link to .*gone, which is not there"):
        places.check_writable(tmp_path / "link")


def test_default_base_dir_is_under_home(tmp_path, monkeypatch):
    monkeypatch.delenv("NANOCHAT_BASE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.base_dir() == tmp_path / ".cache" / "nanochat"
