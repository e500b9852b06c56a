"""A changed byte is another digest: anywhere in a small file, at the ends of a large one."""

from __future__ import annotations

import pytest

from nanochat.dataloader import file_digest as module
from nanochat.dataloader.file_digest import file_digest, file_digests


def test_every_byte_of_a_small_file_counts(tmp_path):
    path = tmp_path / "a"
    data = bytearray(range(200))
    seen = set()
    for at in range(200):
        data[at] ^= 1
        path.write_bytes(data)
        seen.add(file_digest(path))
        data[at] ^= 1
    path.write_bytes(data)
    assert len(seen | {file_digest(path)}) == 201
    assert file_digests([path]) == {"a": file_digest(path)}


@pytest.mark.parametrize("at", [0, 99, 2400, 4900, 4999])
def test_of_a_large_file_size_ends_and_blocks_count(tmp_path, monkeypatch, at):
    monkeypatch.setattr(module, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(module, "BLOCK_BYTES", 100)
    path = tmp_path / "a"
    data = bytearray(5000)
    path.write_bytes(data)
    before = file_digest(path)
    data[at] = 1
    path.write_bytes(data)
    assert file_digest(path) != before
    path.write_bytes(bytes(5001))
    assert file_digest(path) != before
