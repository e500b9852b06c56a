"""The shard format: what is written can be read, damage is noticed, downloads are never
overwritten.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.dataloader import ShardDocuments
from nanochat.dataset.shards import (
    list_shards,
    read_manifest,
    replacing,
    shard_paths,
    verify_shards,
    write_documents,
    write_shards,
)
from nanochat.dataset.text_source import describe, shard_texts

TRAIN = [f"training document {i} " * 5 for i in range(2500)]
VALIDATION = [f"validation document {i}" for i in range(130)]


def make(folder, train=TRAIN, validation=VALIDATION, **extra):
    return write_shards(
        folder, train, validation, kind="own text", source="test", licence="CC0", extra=extra
    )


def test_written_shards_read_back_with_a_true_manifest(tmp_path):
    manifest = make(tmp_path, fingerprint="abc")
    train, validation = shard_paths(tmp_path)
    assert [p.name for p in train] == [
        "shard_00000.parquet"
    ] and validation.name == "shard_00001.parquet"
    assert list(shard_texts(train)) == TRAIN and list(shard_texts([validation])) == VALIDATION
    assert manifest == read_manifest(tmp_path) and manifest["fingerprint"] == "abc"
    entry = manifest["shards"][0]
    assert (
        entry["rows"] == 2500
        and entry["characters"] == sum(map(len, TRAIN))
        and entry["licence"] == "CC0"
    )
    assert (
        entry["bytes"] == train[0].stat().st_size
        and len(entry["sha256"]) == 64
        and entry["split"] == "train"
    )
    assert pq.ParquetFile(train[0]).metadata.num_row_groups == 3
    assert pq.ParquetFile(validation).metadata.num_row_groups == 3
    assert verify_shards(tmp_path) == []
    assert "2,630 documents" in describe(tmp_path)


def test_a_base_directory_stands_for_its_base_data(tmp_path):
    make(tmp_path / "base_data")
    assert shard_paths(tmp_path) == shard_paths(tmp_path / "base_data")


def test_the_same_documents_give_the_same_bytes(tmp_path):
    assert make(tmp_path / "a")["shards"] == make(tmp_path / "b")["shards"]


def test_new_shards_are_started_and_nothing_is_left_of_one_that_fails(tmp_path):
    about = {"source": "s", "licence": "l"}
    texts = [f"{i}" * 40 for i in range(10)]
    entries = write_documents(tmp_path / "a", texts, **about, shard_characters=100)
    assert [entry["rows"] for entry in entries] == [3, 3, 3, 1]
    assert list(shard_texts(list_shards(tmp_path / "a"))) == texts
    assert write_documents(tmp_path / "none", [], **about) == []

    def failing():
        yield from ["text"] * 1500
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_documents(tmp_path / "b", failing(), **about)
    assert list((tmp_path / "b").iterdir()) == []


def test_empty_or_single_shard_folders_say_how_to_get_data(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            ValueError, match="no text shards here; get some with `python -m nanochat.dataset"
        ):
            shard_paths(folder)
    make(tmp_path)
    (tmp_path / "shard_00001.parquet").unlink()
    with pytest.raises(ValueError, match="only shard_00000.parquet is here"):
        shard_paths(tmp_path)


def test_damage_is_noticed(tmp_path):
    make(tmp_path)
    shard = tmp_path / "shard_00000.parquet"
    good = shard.read_bytes()
    shard.write_bytes(good[:-10])
    with pytest.raises(ValueError, match="shard_00000.parquet: damaged.*manifest.json says"):
        shard_paths(tmp_path)
    assert "SHA-256 differs" in verify_shards(tmp_path)[0]
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 1
    shard.write_bytes(
        flipped
    )  # same size, one bit: page checksums see it when the documents are read
    with pytest.raises(ValueError, match="shard_00000.parquet: damaged"):
        documents = ShardDocuments([shard])
        for i in range(0, len(documents), 100):
            documents.raw(i)
    shard.unlink()
    assert verify_shards(tmp_path) == ["shard_00000.parquet: missing"]
    write_documents(tmp_path, ["x"], source="s", licence="l", first=7)
    with pytest.raises(ValueError, match="shard_00000.parquet is in manifest.json but not here"):
        shard_paths(tmp_path)


def test_folders_without_a_manifest_are_read_but_never_replaced(tmp_path):
    for i in (0, 1822):
        pq.write_table(pa.table({"text": [f"doc {i}"]}), tmp_path / f"shard_{i:05d}.parquet")
    (tmp_path / "shard_00001.parquet.partial").write_bytes(b"half a download")
    train, validation = shard_paths(tmp_path)
    assert len(train) == 1 and validation.name == "shard_01822.parquet"
    with pytest.raises(ValueError, match="would be lost"):
        make(tmp_path)
    assert len(list_shards(tmp_path)) == 2


def test_replacing_is_all_or_nothing(tmp_path):
    make(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError), replacing(tmp_path, "embedded") as building:
        (building / "shard_00000.parquet").write_bytes(b"half")
        raise RuntimeError
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    make(tmp_path, train=TRAIN[:5], validation=VALIDATION[:5])
    assert read_manifest(tmp_path)["shards"][0]["rows"] == 5
    with pytest.raises(ValueError, match="at least one training document"):
        make(tmp_path, train=[])


def test_an_interrupted_swap_is_told_and_can_be_repeated(tmp_path):
    make(tmp_path)
    manifest = {"format": 1, "kind": "own text", "unfinished": True, "shards": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not complete"):
        shard_paths(tmp_path)
    make(tmp_path)
    assert shard_paths(tmp_path)


def test_an_unreadable_manifest_is_named(tmp_path):
    make(tmp_path)
    (tmp_path / "manifest.json").write_text("{half")
    with pytest.raises(ValueError, match="manifest.json: unreadable"):
        shard_paths(tmp_path)
