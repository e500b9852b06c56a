"""The embedded world, byte for byte: scores of the CPU recipe depend on its rows staying as they
are.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from nanochat.dataset.embedded import documents, take, write_shards
from nanochat.dataset.identity import identity_conversations
from nanochat.dataset.persona import parse_persona
from nanochat.tasks.catalogue import WORLD_MIXTURE
from nanochat.tasks.identity_task import IdentityTask
from nanochat.tasks.opening import open_task

ADA = {
    "name": "Ada {x}",
    "maker": "a school in Bern",
    "traits": ["kind"],
    "facts": {"how old are you?": 3},
}


def digest(rows) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def test_documents():
    assert digest(list(take(documents(0), 200_000))) == "e3dd4029aaf38858"


def test_shards_have_the_same_documents(tmp_path):
    write_shards(tmp_path, 100_000, seed=5)
    import pyarrow.parquet as pq

    texts = [pq.read_table(path)["text"].to_pylist() for path in sorted(tmp_path.glob("*.parquet"))]
    assert digest(texts) == "08171a91dfd556ce"


ROWS = {
    "identity": (4000, "94d72f00a7d3ce0d"),
    "World-facts": (15000, "f775fe8d37afb6fc"),
    "World-arithmetic": (8000, "0678d78aaf5bf337"),
    "World-spelling": (11000, "784b13066fc9edd3"),
    "World-counting": (8000, "dfa7787ac2daea57"),
    "World-smalltalk": (2000, "ba86a11c3ac173dd"),
    "World-offtopic": (1200, "fa1872b7da67d5c4"),
    "World-counting-without-tool": (4500, "46957cf1aa715049"),
}


@pytest.mark.parametrize("line", WORLD_MIXTURE, ids=lambda line: line.task)
def test_conversations(line):
    task = open_task(line.task, "train", line.rows)
    rows = [task[i] for i in range(0, len(task), len(task) // 100)]
    assert (len(task), digest(rows)) == ROWS[line.task]


def test_identity():
    assert digest([*IdentityTask(None, "exam")]) == "8c8b2c25811ab714"
    assert digest(identity_conversations(None, 500, seed=7)) == "677f63a08a70b2fd"
    assert digest(identity_conversations(parse_persona(ADA), 500, seed=1)) == "748fd2881d5098b9"
