"""Reading text shards: order, row groups, and shards that are damaged or of another kind."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataloader import ShardDocuments


def write(path, texts, column="text", group=3):
    pq.write_table(pa.table({column: pa.array(texts, pa.string())}), path, row_group_size=group)
    return path


def test_documents_come_in_file_order_and_wrap_around(tmp_path):
    paths = [
        write(tmp_path / "a.parquet", [f"a{i}" for i in range(7)]),
        write(tmp_path / "b.parquet", ["b0", None]),
    ]
    documents = ShardDocuments(paths)
    expected = [f"a{i}" for i in range(7)] + ["b0", ""]
    assert len(documents) == 9
    assert [documents.raw(i) for i in range(20)] == (expected * 3)[:20]
    assert [documents.raw(i) for i in (8, 0, 4, 7, 2)] == ["", "a0", "a4", "b0", "a2"]


def test_a_damaged_shard_is_named_with_the_fix(tmp_path):
    path = write(tmp_path / "shard_00003.parquet", ["x" * 1000] * 50)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"shard_00003.parquet: damaged.*export or copy it again"):
        ShardDocuments([path])
    path.write_bytes(good[:8] + b"\xff" * 60 + good[68:])  # the footer is fine, the pages are not
    with pytest.raises(ValueError, match=r"shard_00003.parquet: damaged.*export or copy it again"):
        ShardDocuments([path]).raw(0)
    with pytest.raises(ValueError, match="damaged or unreadable"):
        ShardDocuments([tmp_path / "absent.parquet"])


def test_other_parquet_files_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'text'.*body: string"):
        ShardDocuments([write(tmp_path / "a.parquet", ["x"], column="body")])
    with pytest.raises(ValueError, match="hold no documents"):
        ShardDocuments([write(tmp_path / "b.parquet", [])])
    with pytest.raises(ValueError, match="no text shards"):
        ShardDocuments([])


def test_dictionary_columns_are_text_and_bytes_that_are_not_utf8_are_told(tmp_path):
    coded = pa.array(["a", "b", None, "a"]).dictionary_encode()
    pq.write_table(pa.table({"text": coded}), tmp_path / "c.parquet")
    documents = ShardDocuments([tmp_path / "c.parquet"])
    assert [documents.raw(i) for i in range(4)] == ["a", "b", "", "a"]
    wrong = pa.array([b"fine", b"caf\xe9"], pa.binary())
    wrong = pa.Array.from_buffers(pa.string(), 2, wrong.buffers())
    pq.write_table(pa.table({"text": wrong}), tmp_path / "w.parquet")
    with pytest.raises(ValueError, match=r"w.parquet: damaged.*UTF8"):
        ShardDocuments([tmp_path / "w.parquet"]).raw(0)


def test_a_column_that_is_there_twice_is_named(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="the column 'text' is there 2 times") as caught:
        ShardDocuments([tmp_path / "t.parquet"])
    assert "damaged" not in str(caught.value)
