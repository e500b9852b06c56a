"""What is read below a folder, and that everything else is counted and said."""

from __future__ import annotations

import os
import socket

import pytest

from nanochat.dataset.__main__ import main
from nanochat.dataset.own_text import import_text
from nanochat.dataset.shards import read_manifest
from nanochat.dataset.text_files import find_files
from nanochat.dataset.text_source import find_shards, plain_text


def make(path, text="Some text. " * 20):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(found):
    return [path.relative_to(found.source).as_posix() for path in found.files]


def test_folders_and_files_behind_links_are_read_once(tmp_path):
    make(tmp_path / "elsewhere" / "deep" / "a.txt")
    make(tmp_path / "one.md")
    source = tmp_path / "src"
    make(source / "own.txt")
    (source / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (source / "more.md").symlink_to(tmp_path / "one.md")
    (source / "again").symlink_to(tmp_path / "elsewhere" / "deep", target_is_directory=True)
    (source / "round").symlink_to(source, target_is_directory=True)
    (source / "copy.txt").symlink_to(source / "own.txt")
    os.link(source / "own.txt", source / "zz.txt")
    (source / "gone.txt").symlink_to(tmp_path / "nothing")
    found = find_files(source)
    assert len(found.files) == 3 and "more.md" in names(found)
    assert len(found.left_out["links to what is read already"]) == 4
    assert found.left_out["broken links"] == ["gone.txt"]
    assert find_files(source / "linked").files == [source / "linked" / "deep" / "a.txt"]


def test_pipes_sockets_and_devices_are_said_not_waited_for(tmp_path):
    make(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.txt"))
        (tmp_path / "null.txt").symlink_to("/dev/null")
        found = find_files(tmp_path)
    assert names(found) == ["a.txt"]
    assert found.notes() == ["not read: 3 pipes, sockets and devices (null.txt, pipe.txt, s.txt)"]
    for place, kind in (("pipe.txt", r"a pipe \(FIFO\)"), ("null.txt", "a device")):
        with pytest.raises(ValueError, match=f"--data=.*{kind}; write its text into"):
            find_files(tmp_path / place)


def test_hidden_and_other_files_are_counted(tmp_path):
    for name in ("a.txt", "B.TXT", "c.Md", "._a.txt", ".git/x.txt", "p.png", "q.PNG", "README"):
        make(tmp_path / name)
    found = find_files(tmp_path)
    assert names(found) == ["B.TXT", "a.txt", "c.Md"]
    assert found.notes() == [
        "not read: 3 files of other kinds than .txt, .md, .jsonl, .parquet (2 .png, 1 no suffix)",
        "not read: 2 hidden files and folders (._a.txt, .git)",
    ]
    (tmp_path / "only").mkdir()
    make(tmp_path / "only" / ".h.txt")
    with pytest.raises(ValueError, match=r"no .txt.* files in it.*not read: 1 hidden"):
        find_files(tmp_path / "only")


def test_an_import_says_what_it_left_out_every_time(tmp_path):
    for i in range(40):
        make(tmp_path / "src" / f"{i}.txt", f"Text number {i}. " * 9)
    make(tmp_path / "src" / "notes.rtf")
    for _ in range(2):
        summary = import_text(tmp_path / "src", tmp_path / "out").summary()
        assert "not read: 1 files of other kinds" in summary and "1 .rtf" in summary


def test_training_says_what_it_leaves_out_of_its_data(tmp_path, capsys, base_dir):
    for i in range(40):
        make(tmp_path / "src" / f"{i}.txt", f"Text number {i}. " * 9)
    make(tmp_path / "src" / "notes.rtf")
    train, validation = find_shards(str(tmp_path / "src"), skip_bad=True)
    assert train[0].parent == validation.parent == base_dir / "own_text" / "src"
    assert "1 .rtf" in capsys.readouterr().out
    make(validation.parent / "beside.txt")
    assert find_shards(str(validation.parent)) == (train, validation)
    assert "1 files and folders beside the shards (beside.txt)" in capsys.readouterr().out
    source = plain_text(str(validation.parent))
    assert list(source.texts) and source.notes() == [
        "not read: shard_00001.parquet, the validation shard",
        "not read: 1 files and folders beside the shards (beside.txt)",
    ]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.txt", b"PAR1....", "a parquet file; give it"),
        ("a.md", b"\x1f\x8b\x08\0rest", "gzip-compressed; unpack"),
        ("a.jsonl", b"PK\x03\x04rest", "a zip archive; unpack"),
        ("a.txt", b"%PDF-1.7 ...", "a PDF document; extract"),
        ("a.txt", b"\x28\xb5\x2f\xfdrest", "zstd-compressed; unpack"),
    ],
)
def test_files_of_another_kind_under_a_text_name_are_told(tmp_path, name, data, kind):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: not text but {kind}"):
        import_text(tmp_path / name, tmp_path / "out")
    (tmp_path / name).rename(tmp_path / "a.bin")
    with pytest.raises(ValueError, match=f"not a .txt.* file; {kind}"):
        import_text(tmp_path / "a.bin", tmp_path / "out")


def test_a_long_chain_of_folders_is_walked(tmp_path):
    folder = tmp_path / "src"
    for _ in range(150):
        folder = folder / "d"
    make(folder / "deep.txt")
    assert len(find_files(tmp_path / "src").files) == 1


def test_names_that_are_not_utf8_are_told_as_escapes(tmp_path, capsys):
    source = tmp_path / "src"
    source.mkdir()
    name = os.fsdecode(b"caf\xe9.txt")
    text = "\n\n".join(f"Größe {i} und Länge {i * i}, Straße {i + 7}." for i in range(60))
    (source / name).write_bytes(text.encode("cp1252"))
    (source / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    for _ in range(2):
        main([f"--data={source}", f"--out={tmp_path / 'out'}"])
        out = capsys.readouterr().out
        assert "read as cp1252 (Windows-1252): caf\\udce9.txt" in out and "1 .png" in out
    assert read_manifest(tmp_path / "out")["read_as"] == {name: "cp1252 (Windows-1252)"}
