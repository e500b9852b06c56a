"""The eval bundle, identity conversations and word list: from a mirror, whole or not at all, no
path leads out.
"""

from __future__ import annotations

import json
import zipfile

import pytest

from nanochat.dataset.extras import fetch_extras
from nanochat.launch.fetch import FetchConfig, fetch


@pytest.fixture
def mirror(tmp_path):
    """A folder with the three files, small."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    with zipfile.ZipFile(folder / "eval_bundle.zip", "w") as archive:
        archive.writestr("eval_bundle/core.yaml", "icl_tasks: []\n")
        archive.writestr("eval_bundle/eval_data/a.jsonl", "{}\n")
    (folder / "identity_conversations.jsonl").write_text('[{"role": "user", "content": "x"}]\n')
    (folder / "words_alpha.txt").write_text("\n".join(f"word{i}" for i in range(1000)))
    return folder


def test_everything_arrives_once(mirror, base_dir):
    found = fetch_extras(str(mirror))
    assert all(path.exists() for path in found) and len(found) == 3
    assert sorted(p.name for p in base_dir.iterdir()) == [
        "eval_bundle",
        "identity_conversations.jsonl",
        "words_alpha.txt",
    ]
    for path in mirror.iterdir():
        path.unlink()
    assert fetch_extras(str(mirror)) == found  # nothing is asked for again
    assert fetch(FetchConfig(("extras",))) == "extras: 3 there"


def test_all_failures_are_told_and_nothing_half_is_left(mirror, base_dir):
    (mirror / "eval_bundle.zip").write_bytes((mirror / "eval_bundle.zip").read_bytes()[:60])
    (mirror / "identity_conversations.jsonl").write_text("{}\n<html>\n")
    (mirror / "words_alpha.txt").unlink()
    with pytest.raises(ValueError) as error:
        fetch_extras(str(mirror))
    first, second, third = str(error.value).splitlines()
    assert (
        "not a zip archive" in first
        and "line 2: not JSON" in second
        and "not in the mirror folder" in third
    )
    assert list(base_dir.iterdir()) == []


def test_line_separators_inside_json_strings_end_no_line(mirror, base_dir):
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    row = json.dumps([{"role": "user", "content": odd}], ensure_ascii=False)
    (mirror / "identity_conversations.jsonl").write_text(f"{row}\r\n\n{row}\n", encoding="utf-8")
    assert base_dir / "identity_conversations.jsonl" in fetch_extras(str(mirror))


@pytest.mark.parametrize("name", ["../evil", "eval_bundle/../../evil", "/evil"])
def test_an_archive_cannot_write_elsewhere(mirror, base_dir, name):
    with zipfile.ZipFile(mirror / "eval_bundle.zip", "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(ValueError, match="leads out of the archive"):
        fetch_extras(str(mirror))
    assert not (base_dir / "eval_bundle").exists() and not list(base_dir.parent.rglob("evil"))
