"""The reader of public tokenizer.pkl files carries out nothing that a file asks for."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer, open_tokenizer
from nanochat.tokenizer.public_pickle import read_encoding_pickle

RANKS = {bytes([byte]): byte for byte in range(256)}
SPECIAL = {token: 256 + offset for offset, token in enumerate(SPECIAL_TOKENS)}


def encoding(**changes):
    settings = {
        "pat_str": r"\p{L}+|.",
        "mergeable_ranks": RANKS,
        "special_tokens": SPECIAL,
    } | changes
    return tiktoken.Encoding("test", **settings)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_real_encoding_is_read(protocol, tmp_path):
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(encoding(), protocol=protocol))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.special_tokens == SPECIAL and tokenizer.encode("hi") == [104, 105]


def test_a_public_pickle_serves_wherever_a_tokenizer_is_looked_for(tmp_path, base_dir):
    path = base_dir / "tokenizer" / "tokenizer.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(encoding()))
    ids = [104, 105]
    for tokenizer in (
        Tokenizer.load(),
        open_tokenizer(),
        open_tokenizer(str(path.parent)),
        open_tokenizer(str(path)),
    ):
        assert tokenizer.encode("hi") == ids
    trained = Tokenizer.train(["hi hi hi"], 266)
    trained.save(path.parent)  # ours comes first
    assert Tokenizer.load().identity() == trained.identity() != Tokenizer.load(path).identity()


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def attack_files(flag):
    command = f"touch {flag}"
    yield "os.system", pickle.dumps(Runs(os.system, command))
    yield "os.system, protocol 0", pickle.dumps(Runs(os.system, command), protocol=0)
    yield "builtins.eval", pickle.dumps(Runs(eval, f"open({str(flag)!r}, 'w')"))
    yield "builtins.exec", pickle.dumps(Runs(exec, f"open({str(flag)!r}, 'w')"))
    yield "nested in a list", pickle.dumps([encoding(), Runs(os.system, command)])
    nested = encoding()
    nested._mergeable_ranks = {b"a": Runs(os.system, command)}
    yield "nested in the ranks", pickle.dumps(nested)
    named = encoding()
    named.name = Runs(os.system, command)
    yield "nested in the name", pickle.dumps(named)
    head = b"\x80\x04ctiktoken.core\nEncoding\n"
    yield "class called directly", head + b"(U\x04evil" + b"tR."
    yield "class state set", head + b"}b."
    yield "two objects", head + b")\x81" + head[2:] + b")\x81."
    yield (
        "another class with the right state",
        pickle.dumps(encoding()).replace(b"tiktoken.core", b"tiktoken.cord"),
    )
    yield "no object", b"\x80\x04."
    yield "text", b"hello"
    yield "empty", b""
    yield "persistent id", b"\x80\x04X\x01\x00\x00\x00aQ."
    yield "extension", b"\x80\x04\x82\x01."
    yield "old instance", b"(S'touch'\nios\nsystem\n."
    yield "dotted name", b"\x80\x04\x8c\x0etiktoken.core\x8c\x0fEncoding.decode\x93."
    yield "list", pickle.dumps([1, 2])
    yield "huge length", b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"."
    yield "negative memo", b"\x80\x04}h\x07."
    yield "not a dict", head + b")\x81K\x01b."
    yield "named vocabulary", head + b")\x81X\x04\x00\x00\x00gpt2b."


@pytest.mark.parametrize("number", range(23))
def test_everything_else_is_refused_and_never_run(number, tmp_path, monkeypatch):
    flag = tmp_path / "flag"
    for module, name in ((pickle, "loads"), (pickle, "load")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("the unpickler ran"))
    what, data = list(attack_files(flag))[number]
    with pytest.raises(ValueError, match="tokenizer pickle refused"):
        read_encoding_pickle(data)
    assert not flag.exists(), what


def test_the_list_of_attacks_is_complete(tmp_path):
    assert len(list(attack_files(tmp_path))) == 23


def test_the_attacks_would_work_on_an_ordinary_unpickler(tmp_path):
    """Guards the tests above against attacks that are harmless by mistake."""
    flag = tmp_path / "flag"
    data = dict(attack_files(flag))["os.system"]
    assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(data))
    pickle.loads(data)
    assert flag.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"mergeable_ranks": RANKS | {b"ab": 900}},
        {"mergeable_ranks": {bytes([byte]): byte for byte in range(255)}},
        {"special_tokens": {"<|bos|>": 256}},
        {"special_tokens": SPECIAL | {"<|far|>": 2**40}},
        {"special_tokens": SPECIAL | {"<|twice|>": 256}},
        {"pat_str": "("},
        {"mergeable_ranks": {"a": 1}},
        {"mergeable_ranks": {b"a": 1.5}},
        {"pat_str": 7},
    ],
)
def test_odd_vocabularies_are_refused(changes, tmp_path):
    broken = encoding()
    for name, value in changes.items():
        setattr(broken, f"_{name}", value)
    (tmp_path / "tokenizer.pkl").write_bytes(pickle.dumps(broken))
    with pytest.raises(ValueError, match=f"tokenizer in {tmp_path}"):
        Tokenizer.load(tmp_path)


GOOD = pickle.dumps(encoding(), protocol=4)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_flipped_byte_reads_or_is_refused_but_never_anything_else(position, value):
    data = bytearray(GOOD)
    data[position] = value
    try:
        read_encoding_pickle(bytes(data))
    except ValueError as error:
        assert "refused" in str(error)
