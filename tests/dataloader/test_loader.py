"""The loader: the order does not know the ranks, resume is exact, one pass is one pass, prefetch
changes nothing.
"""

from __future__ import annotations

import json
import random

import pytest
import torch

from nanochat.dataloader import Batch, ConversationDocuments, PackedLoader, TextDocuments

BOS = 256


class ByteTokenizer:
    """One id per byte; enough of the tokenizer's interface for the loader."""

    def get_bos_token_id(self) -> int:
        return BOS

    def encode(self, text: str, prepend: int | None = None) -> list[int]:
        return ([] if prepend is None else [prepend]) + list(text.encode())

    def render_conversation(self, conversation: dict) -> tuple[list[int], list[int]]:
        ids, mask = [BOS], [0]
        for message in conversation["messages"]:
            new = list(message["content"].encode())
            ids += new
            mask += [int(message["role"] == "assistant")] * len(new)
        return ids, mask


def texts(count: int = 60, seed: int = 0) -> TextDocuments:
    rng = random.Random(seed)
    return TextDocuments(
        ["".join(rng.choices("abcdefgh", k=rng.randint(1, 90))) for _ in range(count)]
    )


def chats(count: int = 50) -> list[dict]:
    rng = random.Random(1)
    return [
        {
            "messages": [
                {"role": "user", "content": f"q{i} " + "x" * rng.randint(0, 20)},
                {"role": "assistant", "content": f"A{i}" + "Y" * rng.randint(0, 40)},
            ]
        }
        for i in range(count)
    ]


def make(documents, rank=0, world_size=1, **options) -> PackedLoader:
    options = {
        "rows_per_step": 7,
        "seq_len": 32,
        "device_batch_size": 3,
        "prefetch": False,
        **options,
    }
    return PackedLoader(documents, ByteTokenizer(), rank=rank, world_size=world_size, **options)


def joined(batches: list[Batch]) -> torch.Tensor:
    """(rows, 3, T): inputs, targets and weights of several micro-batches."""
    parts = [
        torch.stack([b.input_ids.double(), b.targets.double(), b.weights.double()], 1)
        for b in batches
    ]
    return torch.cat(parts)


def test_batches_are_full_rows_of_next_token_targets():
    loader = make(texts())
    batches = loader.next_step()
    assert [len(batch.input_ids) for batch in batches] == [3, 3, 1]
    for batch in batches:
        assert (
            batch.input_ids.dtype == batch.targets.dtype == torch.int64
            and batch.weights.dtype == torch.float32
        )
        assert torch.equal(batch.input_ids[:, 1:], batch.targets[:, :-1])
        assert (batch.input_ids[:, 0] == BOS).all() and (batch.weights == 1).all()
    assert batches[0].to("cpu").targets.shape == (3, 32)


@pytest.mark.parametrize(
    "documents", [texts(), ConversationDocuments(chats())], ids=["text", "chat"]
)
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_rows_do_not_depend_on_the_number_of_ranks(documents, world_size):
    alone = make(documents)
    ranks = [make(documents, rank, world_size) for rank in range(world_size)]
    for _ in range(12):
        assert torch.equal(
            joined(alone.next_step()), torch.cat([joined(rank.next_step()) for rank in ranks])
        )


@pytest.mark.parametrize(
    "documents", [texts(), ConversationDocuments(chats())], ids=["text", "chat"]
)
@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 1), (3, 2)])
def test_resume_equals_uninterrupted_on_any_number_of_ranks(documents, prefetch, before, after):
    reference = make(documents)
    expected = [joined(reference.next_step()) for _ in range(20)]
    first = [make(documents, rank, before, prefetch=prefetch) for rank in range(before)]
    for _ in range(9):
        for loader in first:
            loader.next_step()
    states = json.loads(json.dumps([loader.state_dict() for loader in first]))
    second = [make(documents, rank, after, prefetch=prefetch) for rank in range(after)]
    for loader in second:
        loader.load_state_dict(states)
        assert loader.step == 9
    for step in range(9, 20):
        assert torch.equal(
            torch.cat([joined(loader.next_step()) for loader in second]), expected[step]
        )
    for loader in first + second:
        loader.close()


def test_state_is_what_was_handed_out_not_what_was_prefetched():
    plain, ahead = make(texts()), make(texts(), prefetch=True)
    for _ in range(5):
        plain.next_step()
        ahead.next_step()
        ahead._pending.result()
        assert ahead.state_dict() == plain.state_dict()
    ahead.close()


def test_one_pass_reads_every_document_once():
    source = texts(40)
    for world_size in (1, 3):
        seen = []
        for rank in range(world_size):
            for batches in make(source, rank, world_size, passes=1):
                for batch in batches:
                    for ids, targets, weights in zip(
                        batch.input_ids, batch.targets, batch.weights, strict=True
                    ):
                        row = [int(ids[0]), *targets[weights > 0].tolist()]
                        seen += [token for token in row if token != BOS]
        assert sorted(seen) == sorted(token for text in source.texts for token in text.encode())


def test_validation_is_the_same_every_time_and_stops():
    loader = PackedLoader.validation(
        texts(200),
        ByteTokenizer(),
        eval_tokens=7 * 32 * 3,
        rows_per_step=7,
        seq_len=32,
        device_batch_size=4,
    )
    first = [joined(batches) for batches in loader]
    second = [joined(batches) for batches in loader]
    assert len(first) == 3 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    small = PackedLoader.validation(
        texts(5),
        ByteTokenizer(),
        eval_tokens=10**6,
        rows_per_step=7,
        seq_len=32,
        device_batch_size=4,
    )
    assert 0 < len(list(small)) < 10
    assert sum(float(b.weights.sum()) for batches in small for b in batches) > 0


def test_conversations_are_masked_shuffled_and_padded_without_weight():
    task = chats()
    loader = make(ConversationDocuments(task), passes=1, seq_len=80)
    trained = [t for batches in loader for b in batches for t in b.targets[b.weights > 0].tolist()]
    answers = [m["content"] for c in task for m in c["messages"] if m["role"] == "assistant"]
    assert sorted(trained) == sorted(byte for answer in answers for byte in answer.encode())
    every = make(ConversationDocuments(task, masked=False), passes=1, seq_len=80)
    assert sum(float(b.weights.sum()) for batches in every for b in batches) > len(trained)


def test_shuffle_differs_by_pass_and_is_a_permutation():
    documents = ConversationDocuments(chats(20), seed=3)
    orders = [
        [documents.raw(p * 20 + i)["messages"][0]["content"] for i in range(20)] for p in range(3)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == [
        ConversationDocuments(chats(20), seed=3).raw(i)["messages"][0]["content"] for i in range(20)
    ]


def test_estimate_is_close_to_what_a_pass_takes(monkeypatch):
    source = texts(500)
    exact = make(source).estimate_steps()
    tokens = sum(len(text) + 1 for text in source.texts)
    assert exact == pytest.approx(tokens / 33 / 7, rel=0.1)
    monkeypatch.setattr("nanochat.dataloader.loader.EXACT_DOCUMENTS", 100)
    monkeypatch.setattr("nanochat.dataloader.loader.SAMPLE_DOCUMENTS", 200)
    monkeypatch.setattr("nanochat.dataloader.loader.SAMPLE_RUN", 5)
    assert make(source).estimate_steps() == pytest.approx(exact, rel=0.15)
    assert make(source).estimate_steps(epochs=3) == pytest.approx(3 * exact, rel=0.15)


def test_a_source_smaller_than_a_step_still_fills_rows():
    loader = make(TextDocuments(["only one document"]))
    assert (joined(loader.next_step())[:, 2] == 1).all()


def test_small_sources_are_seen_evenly():
    loader = make(TextDocuments([chr(97 + i) * 10 for i in range(20)]), rows_per_step=4)
    counts = torch.zeros(20)
    for _ in range(100):
        for batch in loader.next_step():
            counts += torch.bincount(batch.targets.flatten() - 97 + 300, minlength=500)[300:320]
    assert counts.min() > 0.7 * counts.max()


def test_misuse_is_told_plainly():
    with pytest.raises(ValueError, match="too few for 9 ranks"):
        make(texts(), 0, 9)
    with pytest.raises(ValueError, match="endless"):
        next(iter(make(texts())))
    state = make(texts(60)).state_dict()
    with pytest.raises(ValueError, match="documents: 60 then, 61 now"):
        make(texts(61)).load_state_dict(state)
    with pytest.raises(ValueError, match="tokens of a row: 32 then, 16 now"):
        make(texts(60), seq_len=16).load_state_dict(state)
    half = make(texts(60), 0, 2).state_dict()
    with pytest.raises(ValueError, match="states of all ranks"):
        make(texts(60)).load_state_dict(half)
    with pytest.raises(ValueError, match="no conversations"):
        ConversationDocuments([])


def test_errors_of_the_background_thread_arrive():
    class Broken(TextDocuments):
        def raw(self, index: int) -> str:
            if index > 30:
                raise ValueError("shard_00007.parquet: damaged")
            return "some text"

    loader = make(Broken(["x"] * 1000), prefetch=True)
    with pytest.raises(ValueError, match="shard_00007"):
        for _ in range(50):
            loader.next_step()
    loader.close()
