"""Setting aside: to dated folders, on the disk where things are, nothing deleted."""

from __future__ import annotations

import errno
import os

import pytest

from nanochat.runtime.previous import set_aside, sizes


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "base_checkpoints" / "d4"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("model_000003.pt", "meta_000003.json", "tokenizer/vocab"):
        (folder / name).write_text(name)
    return folder


def test_a_folder_and_a_file_go_below_the_date(tmp_path, place):
    target = set_aside(place, tmp_path, "then")
    assert target == tmp_path / "previous" / "then" / "base_checkpoints" / "d4"
    assert (target / "tokenizer" / "vocab").exists() and not place.exists()
    assert sizes(target) == (3, 46)
    (tmp_path / "exam.json").write_text("{}")
    moved = set_aside(tmp_path / "exam.json", tmp_path, "then")
    assert moved == tmp_path / "previous" / "then" / "exam.json" and moved.read_text() == "{}"


def test_the_same_second_is_another_folder(tmp_path, place):
    targets = set()
    for text in ("a", "b", "c"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "x").write_text(text)
        targets.add(set_aside(place, tmp_path, "then", only={"x"}))
    assert {(target / "x").read_text() for target in targets} == {"a", "b", "c"}
    assert (place / "model_000003.pt").exists(), "only what was named"


def test_nothing_is_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    assert set_aside(tmp_path / "empty", tmp_path) is None
    assert set_aside(tmp_path / "absent", tmp_path) is None
    assert not (tmp_path / "previous").exists()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("n_refused, where", [(1, "beside"), (2, "inside"), (3, None)])
def test_where_a_rename_cannot_go(tmp_path, place, monkeypatch, number, n_refused, where):
    """Another disk, or a folder that is one: beside it, else in it; never a copy, never half."""
    rename, tried = os.rename, []

    def refuse(source, target):
        tried.append(target)
        if len(tried) <= n_refused:
            raise OSError(number, os.strerror(number))
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    before = {path.name for path in place.iterdir()}
    if where is None:
        with pytest.raises(ValueError, match="move it away by hand"):
            set_aside(place, tmp_path, "then")
        assert {path.name for path in place.iterdir()} == before
        return
    target = set_aside(place, tmp_path, "then")
    beside, inside = place.parent / "previous" / "then" / "d4", place / "previous" / "then"
    assert target == (beside if where == "beside" else inside)
    assert {path.name for path in target.iterdir()} == before
    assert not (tmp_path / "previous").exists(), "no empty folders stay behind"


def test_other_errors_are_not_swallowed(tmp_path, place, monkeypatch):
    def fail(source, target):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="I/O error"):
        set_aside(place, tmp_path)
