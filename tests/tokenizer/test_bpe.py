"""The tokenizer itself: parity with public files, training, saving, bad input."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer, open_tokenizer
from nanochat.tokenizer.bpe import LONGEST_BLANK, cut_blank_runs

TEXTS = [
    "the cat sat on the mat",
    "the dog ate the cat's dinner",
    "12345 numbers and 678 more",
    "naïve café 日本語",
] * 5


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(iter(TEXTS), 300)


def test_encode_equals_the_public_tokenizer(shared_dir):
    folder = shared_dir / "fixtures" / "classic_d2"
    expected = json.loads((folder / "tokenizer_expected.json").read_text())
    tokenizer = Tokenizer.load(folder / "tokenizer")
    assert tokenizer.get_vocab_size() == expected["vocab_size"]
    assert tokenizer.special_tokens == expected["special"]
    for case in expected["encode"]:
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
    assert tokenizer.encode([case["text"] for case in expected["encode"]]) == [
        c["ids"] for c in expected["encode"]
    ]
    public = torch.load(folder / "tokenizer" / "token_bytes.pt", weights_only=True)
    assert torch.equal(tokenizer.token_bytes(), public)


@pytest.mark.parametrize("kind", ["bytes", "trained"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_survives_the_round_trip(kind, trained, text):
    tokenizer = trained if kind == "trained" else Tokenizer.byte_level()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert sum(tokenizer.token_bytes()[ids].tolist()) == len(text.encode())
    assert not set(ids) & set(tokenizer.special_tokens.values())


def test_special_tokens_follow_the_merges_and_text_never_makes_one(trained):
    first = trained.get_vocab_size() - len(SPECIAL_TOKENS)
    assert [trained.encode_special(token) for token in SPECIAL_TOKENS] == list(
        range(first, first + 9)
    )
    assert trained.get_bos_token_id() == first
    ids = trained.encode("".join(SPECIAL_TOKENS))
    assert max(ids) < first and trained.decode(ids) == "".join(SPECIAL_TOKENS)
    assert trained.id_to_token(first) == "<|bos|>"
    with pytest.raises(ValueError, match="no special token"):
        trained.encode_special("<|nope|>")


def test_prepend_append_and_batches_agree(trained):
    bos = trained.get_bos_token_id()
    single = [trained.encode(text, prepend="<|bos|>", append=7) for text in TEXTS]
    assert trained.encode(TEXTS, prepend=bos, append=7, num_threads=2) == single
    assert single[0][0] == bos and single[0][-1] == 7


def test_training_reaches_the_size_asked_for_and_is_repeatable(trained):
    assert trained.get_vocab_size() == 300
    assert Tokenizer.train(TEXTS, 300).identity() == trained.identity()
    assert len(trained.encode("the cat")) < len(b"the cat")


def test_little_text_makes_a_smaller_vocabulary_and_no_text_an_error():
    assert 265 < Tokenizer.train(["hello hello"], 5000).get_vocab_size() < 300
    for nothing in ([], [""]):
        with pytest.raises(ValueError, match="no text"):
            Tokenizer.train(nothing, 300)
    with pytest.raises(ValueError, match="vocab_size=264 .* 265"):
        Tokenizer.train(TEXTS, 264)


def test_endless_blanks_and_lone_surrogates_do_not_break_anything():
    blank = "x" + " " * 1_000_000 + "y"  # the regex engine underneath gives up on such a run
    tokenizer = Tokenizer.train([blank, "a\ud800b"], 300)
    assert tokenizer.decode(tokenizer.encode(blank)) == blank
    assert tokenizer.encode([blank, "x"])[0] == tokenizer.encode(blank)
    assert "".join(cut_blank_runs(blank)) == blank and len(cut_blank_runs(blank)) > 1
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


# Every class of character the split pattern tells apart, and mixtures of them.
UNITS = (
    [" ", "\t", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000"]
    + ["a", "Z", "é", "ß", "Я", "漢", "あ", "한", "ا", "\u0301", "e\u0301", "1", "٣", "½", "²"]
    + [
        ".",
        "-",
        "'",
        "’",
        "'s",
        "'LL",
        '"',
        "_",
        "$",
        "€",
        "😀",
        "👩‍👩‍👧",
        "\ufeff",
        "\u200d",
        "\0",
    ]
    + [" a", "a ", " \n", "\n ", "1 ", "12a", ". ", ".\n", "a'b", "the cat ", "  x", "x\t\t"]
)


def plain_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """What tiktoken says, without anything of ours before it."""
    ranks = {tokenizer.decode_bytes([i]): i for i in range(tokenizer.get_vocab_size() - 9)}
    plain = tiktoken.Encoding(
        "plain", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={}
    )
    return plain.encode_ordinary(text)


@pytest.fixture(scope="module")
def rich() -> Tokenizer:
    """A vocabulary with merges of every kind of character."""
    return Tokenizer.train([unit * 40 for unit in UNITS] * 2, 900)


@pytest.mark.parametrize("unit", UNITS, ids=ascii)
def test_runs_of_every_kind_of_character_are_encoded_as_tiktoken_does(rich, unit):
    text = f"x{unit * (150_000 // len(unit))}y"
    assert rich.encode(text) == plain_ids(rich, text)


@pytest.mark.parametrize("blank", [" ", "\t", "\u3000"])
def test_long_runs_of_blanks_take_one_pass(rich, blank):
    # One pass is a moment. Trying every place of a run as its start is a minute for each of these.
    twenty = [blank * 100_000 + "x"] * 20
    assert rich.encode(twenty) == [plain_ids(rich, twenty[0])] * 20
    text = blank * (LONGEST_BLANK - 1) + "y" + blank * 300_000
    assert cut_blank_runs(text) == [text]
    assert rich.encode(text) == plain_ids(rich, text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(UNITS) | st.text(max_size=6), max_size=40), st.integers(1, 30))
def test_random_texts_are_encoded_as_tiktoken_does(rich, units, times):
    text = "".join(units) * times
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        assert rich.encode(text) == plain_ids(rich, text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(UNITS), max_size=40), st.integers(1, 9))
def test_cuts_lie_in_runs_of_blanks_longer_than_the_limit(units, limit):
    text = "".join(units)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nanochat.tokenizer.bpe.LONGEST_BLANK", limit)
        pieces = cut_blank_runs(text)
    assert "".join(pieces) == text and (all(pieces) or pieces == [""])
    assert not any(re.search(rf"[ \t\n\r\x0b\xa0]{{{limit + 1}}}", piece) for piece in pieces)
    for before, after in itertools.pairwise(pieces):
        assert before[-limit:].isspace() and after[0].isspace() and len(before) >= limit


def test_save_and_load_without_pickle(trained, tmp_path):
    trained.save(tmp_path / "tokenizer")
    again = Tokenizer.load(tmp_path / "tokenizer")
    assert again.identity() == trained.identity()
    assert again.encode(TEXTS) == trained.encode(TEXTS)
    sizes = torch.load(tmp_path / "tokenizer" / "token_bytes.pt", weights_only=True)
    assert sizes.dtype == torch.int32 and sizes.shape == (300,) and sizes[-9:].sum() == 0
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        "token_bytes.pt",
        "tokenizer.json",
    ]


def test_identity_tells_vocabularies_apart(trained):
    assert Tokenizer.byte_level().identity() == Tokenizer.byte_level().identity()
    assert (
        len(
            {
                trained.identity(),
                Tokenizer.byte_level().identity(),
                Tokenizer.train(TEXTS, 301).identity(),
            }
        )
        == 3
    )


def test_a_missing_tokenizer_says_how_to_get_one(tmp_path):
    with pytest.raises(ValueError, match=r"python -m scripts\.tok_train"):
        Tokenizer.load()
    with pytest.raises(ValueError, match=r"python -m scripts\.tok_train"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace("nanochat-bpe-1", "other"),
        lambda text: (
            text.replace('"dGhl"', '"eGhl"') if '"dGhl"' in text else text.replace("IHRo", "IHhv")
        ),
        lambda text: text.replace("<|python_end|>", "<|python_fin|>"),
        lambda text: text.replace("tokens_base64", "tokens"),
    ],
)
def test_a_damaged_file_is_one_clear_error(trained, tmp_path, damage):
    trained.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(ValueError, match=f"tokenizer in {tmp_path}"):
        Tokenizer.load(tmp_path)


def test_ids_outside_the_vocabulary_are_an_error(trained):
    for bad in (-1, 300):
        with pytest.raises(ValueError, match="outside the vocabulary of 300"):
            trained.decode([bad])


class FakeEncoding:
    _mergeable_ranks = {bytes([byte]): byte for byte in range(256)}
    _special_tokens = {"<|endoftext|>": 256, "<|far|>": 900}
    _pat_str = r"\s?\p{L}+|."


def test_known_vocabularies_get_our_special_tokens(monkeypatch):
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: FakeEncoding)
    tokenizer = open_tokenizer("gpt2")
    assert tokenizer.encode_special("<|endoftext|>") == 256 and tokenizer.get_bos_token_id() == 257
    assert tokenizer.get_vocab_size() == 266 and tokenizer.decode(tokenizer.encode("a b")) == "a b"
    with pytest.raises(ValueError, match="'gpt7' is unknown; tiktoken has gpt2"):
        Tokenizer.from_pretrained("gpt7")


def test_a_known_vocabulary_that_cannot_be_fetched_says_what_to_do(monkeypatch):
    def no_network(name):
        raise OSError("no route")

    monkeypatch.setattr("tiktoken.get_encoding", no_network)
    with pytest.raises(ValueError, match="TIKTOKEN_CACHE_DIR"):
        Tokenizer.from_pretrained("gpt2")
