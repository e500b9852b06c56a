"""Own text: any mix of files becomes shards, split by content, stable, without duplicates, with
plain errors.
"""

from __future__ import annotations

import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.dataset import own_text
from nanochat.dataset.own_text import import_text
from nanochat.dataset.shards import read_manifest, shard_paths, write_shards
from nanochat.dataset.text_files import find_files
from nanochat.dataset.text_reader import split_text
from nanochat.dataset.text_source import shard_texts

WORDS = "the quick brown fox jumps over a lazy dog while it rains in Spain".split()


def document(i: int) -> str:
    return f"Document {i}. " + " ".join(random.Random(i).choices(WORDS, k=30))


def sides(folder) -> tuple[list[str], list[str]]:
    train, validation = shard_paths(folder)
    return list(shard_texts(train)), list(shard_texts([validation]))


@pytest.fixture
def source(tmp_path):
    """A folder with every kind of file and a few duplicates: 300 different documents."""
    folder = tmp_path / "my text"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i in range(100):
        (folder / f"n{i}.txt").write_text(document(i))
    (folder / "deep" / "a.md").write_text(document(100))
    (folder / "deep" / "er" / "copy.txt").write_text(document(3) + "\n")
    lines = [json.dumps({"text": document(i), "id": i}) for i in [*range(101, 200), 5, 105]]
    (folder / "b.jsonl").write_text("\n".join([*lines[:50], "", *lines[50:]]))
    pq.write_table(pa.table({"text": [document(i) for i in range(200, 300)]}), folder / "c.parquet")
    (folder / ".hidden" / "no.txt").write_text("not this")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    return folder


def test_every_file_kind_is_read_once_and_split(source, tmp_path):
    result = import_text(source, tmp_path / "out", licence="mine")
    train, validation = sides(tmp_path / "out")
    assert sorted(train + validation) == sorted(document(i) for i in range(300))
    assert not set(train) & set(validation) and 3 <= len(validation) <= 30
    assert (result.train_documents, result.validation_documents) == (len(train), len(validation))
    assert result.duplicates == 3 and "3 exact duplicates dropped" in result.summary()
    manifest = read_manifest(tmp_path / "out")
    assert manifest["kind"] == "own text" and manifest["shards"][0]["licence"] == "mine"
    assert train != sorted(train, key=lambda text: int(text.split()[1].rstrip(".")))  # shuffled


def test_running_again_does_nothing_until_the_text_changes(source, tmp_path):
    out = tmp_path / "out"
    import_text(source, out)
    stamp = (out / "shard_00000.parquet").stat().st_mtime_ns
    again = import_text(source, out)
    assert (
        again.unchanged
        and again.duplicates == 3
        and (out / "shard_00000.parquet").stat().st_mtime_ns == stamp
    )
    (out / "shard_00000.parquet").unlink()
    assert not import_text(source, out).unchanged
    before = sides(out)
    (source / "new.txt").write_text(document(1000))
    (source / "n7.txt").rename(source / "zzz.txt")
    assert not import_text(source, out).unchanged
    after = sides(out)
    assert set(before[0]) <= set(after[0]) and set(before[1]) <= set(after[1]), (
        "documents changed sides"
    )


def test_the_result_does_not_depend_on_where_the_source_lies(source, tmp_path):
    import_text(source, tmp_path / "one")
    source.rename(tmp_path / "elsewhere")
    import_text(tmp_path / "elsewhere", tmp_path / "two")
    hashes = [
        [s["sha256"] for s in read_manifest(tmp_path / name)["shards"]] for name in ("one", "two")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("paragraphs", [1, 2, 6, 40])
def test_one_small_file_is_enough(tmp_path, paragraphs):
    text = "\n\n".join(document(i) for i in range(paragraphs))
    (tmp_path / "book.txt").write_text(text)
    import_text(tmp_path / "book.txt", tmp_path / "out")
    train, validation = sides(tmp_path / "out")
    assert train and validation
    assert sorted("".join("".join(train + validation).split())) == sorted("".join(text.split()))


def test_one_long_file_becomes_documents(tmp_path, monkeypatch):
    monkeypatch.setattr("nanochat.dataset.text_reader.PIECE_CHARACTERS", 1000)
    (tmp_path / "book.md").write_text("\r\n\r\n".join(document(i) for i in range(400)))
    import_text(tmp_path / "book.md", tmp_path / "out")
    train, validation = sides(tmp_path / "out")
    assert all(500 < len(text) <= 1000 and "\r" not in text for text in train)
    assert len(validation) < 0.2 * len(train)


def test_large_sources_are_shuffled_in_blocks_with_a_smaller_validation_share(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(own_text, "SHUFFLE_CHARACTERS", 5000)
    monkeypatch.setattr(own_text, "VALIDATION_CHARACTERS", 1000)
    import_text(source, tmp_path / "out")
    train, validation = sides(tmp_path / "out")
    assert len(train) + len(validation) == 300 and 1 <= len(validation) < 15
    numbers = [int(text.split()[1].rstrip(".")) for text in train]
    assert sum(a < b for a, b in itertools.pairwise(numbers)) < 0.7 * len(numbers), "not shuffled"


def test_a_shard_folder_keeps_its_own_split(tmp_path):
    train, validation = [document(i) for i in range(30)], [document(i) for i in range(50, 52)]
    write_shards(
        tmp_path / "src", train, validation, kind="embedded", source="there", licence="CC0"
    )
    result = import_text(tmp_path / "src", tmp_path / "out")
    assert sides(tmp_path / "out") == (train, validation)
    entry = read_manifest(tmp_path / "out")["shards"][0]
    assert (
        entry["licence"] == "CC0"
        and entry["source"] == "there"
        and entry["characters"] == sum(map(len, train))
    )
    assert (
        result.train_documents == 30 and import_text(tmp_path / "src", tmp_path / "out").unchanged
    )
    with pytest.raises(ValueError, match="already"):
        import_text(tmp_path / "src", tmp_path / "src")
    shard = tmp_path / "src" / "shard_00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-4] + b"oops")
    with pytest.raises(ValueError, match="shard_00000.parquet: damaged"):
        import_text(tmp_path / "src", tmp_path / "out")
    assert sides(tmp_path / "out") == (train, validation), (
        "a failed import must leave what was there"
    )


def test_the_development_text_is_taken_as_it_is(shared_dir, tmp_path):
    result = import_text(shared_dir / "data" / "text", tmp_path)
    assert (result.train_documents, result.validation_documents) == (23_396, 531)


def test_older_encodings_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("Crème brûlée. ".encode("cp1252") * 20)
    (tmp_path / "b.txt").write_bytes(
        "Größe. ".encode("utf-16") * 1 + "Länge. ".encode("utf-16-le") * 20
    )
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfwith a mark. " + b"and more. " * 20)
    (tmp_path / "d.jsonl").write_text('{"text": "lone \\ud800 surrogate"}')
    import_text(tmp_path, tmp_path / "out")
    text = " ".join(itertools.chain(*sides(tmp_path / "out")))
    assert "Crème brûlée" in text and "Größe" in text and "\ufeff" not in text


BAD = {
    "empty.txt": (b"   \n", "too little text"),
    "short.txt": (b"hello", "too little text"),
    "zero.txt": (b"ab\0cd" * 100, "zero.txt: holds zero bytes"),
    "bad.jsonl": (
        b'{"text": "x"}\n{oops\n[1]\n',
        r"bad.jsonl:2: not JSON.*and 1 more bad line",
    ),
    "field.jsonl": (b'{"body": "x"}', r'field.jsonl:1: no string field "text"'),
    "chat.jsonl": (b'{"messages": []}', r"chat.jsonl:1: a conversation.*chat_sft"),
    "cut.parquet": (b"PAR1 and no more", "cut.parquet: damaged"),
    "word.docx": (b"PK", "not a .txt, .md, .jsonl, .parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        import_text(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*")), "something half-written is left"


def test_missing_and_empty_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        import_text(tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no .txt, .md"):
        import_text(tmp_path / "empty", tmp_path / "out")


def test_the_output_folder_inside_the_source_is_not_read(tmp_path):
    (tmp_path / "a.txt").write_text(document(1) * 5)
    import_text(tmp_path, tmp_path / "out")
    assert find_files(tmp_path, exclude=tmp_path / "out").files == [tmp_path / "a.txt"]
    assert import_text(tmp_path, tmp_path / "out").unchanged


@given(st.text(alphabet="ab. \n!", max_size=400), st.integers(1, 50))
def test_split_text_keeps_every_character_but_blanks(text, limit):
    pieces = split_text(text, limit)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= limit for piece in pieces)


def test_ranks_that_import_at_the_same_time_agree(source, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: import_text(source, tmp_path / "out"), range(4)))
    assert [result.unchanged for result in results].count(False) == 1
    assert sum(len(side) for side in sides(tmp_path / "out")) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my text", "out"]  # and no lock


def parquet_shards(folder, last=None, **columns):
    folder.mkdir()
    for i in range(2):
        table = pa.table(columns if i == 0 or last is None else last)
        pq.write_table(table, folder / f"shard_{i:05d}.parquet")
    return folder


TEXTS = [document(i) for i in range(30)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: parquet_shards(path, content=TEXTS),
            r"shard_00000.parquet: no column 'text'.*it has content: string.*rename 'content'",
        ),
        (
            lambda path: parquet_shards(path, id=[1, 2], body=["a", "b"]),
            "it has id: int64, body: string.*rename 'body'",
        ),
        (
            lambda path: parquet_shards(path, text=[1, 2]),
            r"no column 'text' of strings \(it has text: int64\); text shards need one",
        ),
        (
            lambda path: parquet_shards(path, last={"text": pa.array([], pa.string())}, text=TEXTS),
            "shard_00001.parquet: the last shard is validation, and it holds no text",
        ),
        (
            lambda path: parquet_shards(path, last={"text": ["", None]}, text=TEXTS),
            "shard_00001.parquet: the last shard is validation, and it holds no text",
        ),
        (lambda path: parquet_shards(path, last={"body": ["x"]}, text=TEXTS), "shard_00001.*body"),
    ],
)
def test_own_parquet_files_of_another_shape_are_named_and_never_to_be_deleted(
    tmp_path, make, message
):
    with pytest.raises(ValueError, match=message) as caught:
        import_text(make(tmp_path / "src"), tmp_path / "out")
    assert "delete" not in str(caught.value) and "damaged" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*"))


def test_shards_of_dictionary_columns_are_taken_over_and_read(tmp_path):
    folder = parquet_shards(tmp_path / "src", text=pa.array(TEXTS).dictionary_encode())
    made = import_text(folder, tmp_path / "out")
    assert (made.train_documents, made.validation_documents) == (30, 30)
    assert sides(tmp_path / "out") == (TEXTS, TEXTS)
    assert made.characters == 2 * sum(map(len, TEXTS))


def test_a_damaged_file_of_ones_own_is_never_to_be_deleted(tmp_path):
    folder = parquet_shards(tmp_path / "src", text=TEXTS)
    (folder / "shard_00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="damaged.*export or copy it again") as caught:
        import_text(folder, tmp_path / "out")
    assert "delete" not in str(caught.value)


def test_a_manifest_of_another_program_beside_own_shards_means_nothing(tmp_path):
    for content in ("[1, 2]", '{"shards": {"a": 1}}', '{"shards": [7]}', '{"version": 2}'):
        folder = parquet_shards(tmp_path / f"src{len(content)}", text=TEXTS)
        (folder / "manifest.json").write_text(content)
        assert import_text(folder, tmp_path / "out").train_documents == 30


def test_what_stands_beside_own_shards_is_said(tmp_path):
    folder = parquet_shards(tmp_path / "src", text=TEXTS)
    (folder / "more.txt").write_text("not read")
    for _ in range(2):
        notes = import_text(folder, tmp_path / "out").notes
        assert notes == ["not read: 1 files and folders beside the shards (more.txt)"]


@pytest.mark.parametrize("depth", [1_000, 10_000, 200_000])
def test_json_that_is_nested_too_deeply_is_a_bad_line(tmp_path, depth):
    (tmp_path / "f.jsonl").write_text('{"text": "fine"}\n{"text": ' + "[" * depth + "\n")
    with pytest.raises(ValueError, match=r"f.jsonl:2: not usable JSON .*nested too deeply"):
        import_text(tmp_path / "f.jsonl", tmp_path / "out")


def test_a_key_that_is_there_twice_is_a_bad_line(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"text": "one", "text": "two"}\n')
    with pytest.raises(ValueError, match=r"f.jsonl:1: .*the key 'text' is there 2 times"):
        import_text(tmp_path / "f.jsonl", tmp_path / "out")


def test_separators_inside_strings_end_no_line(tmp_path):
    odd = "a\u2028b\u2029c\x85d\x0ce"
    rows = [json.dumps({"text": f"{odd} {i}"}, ensure_ascii=False) for i in range(40)]
    (tmp_path / "f.jsonl").write_text("\n".join(rows), encoding="utf-8")
    import_text(tmp_path / "f.jsonl", tmp_path / "out")
    assert f"{odd} 7" in itertools.chain(*sides(tmp_path / "out"))


def test_a_tilde_is_expanded_or_the_error_says_why_not(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert import_text("~/a.txt", tmp_path / "out").train_documents
    with pytest.raises(ValueError, match="no home directory for ~nobody-of-that-name"):
        import_text("~nobody-of-that-name/a.txt", tmp_path / "out")
