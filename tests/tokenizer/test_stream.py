"""The streaming decoder: pieces are whole characters and add up to the decoded text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nanochat.tokenizer import StreamDecoder, Tokenizer

TOKENIZER = Tokenizer.byte_level()
ids = st.lists(st.integers(0, 264), max_size=60) | st.text(max_size=20).map(TOKENIZER.encode)


@given(ids)
def test_the_pieces_add_up_to_the_decoded_text(ids):
    stream = StreamDecoder(TOKENIZER)
    pieces = [stream.push(token) for token in ids] + [stream.flush()]
    assert "".join(pieces) == TOKENIZER.decode(ids)
    assert stream.flush() == "" and stream.push(65) == "A"


@given(st.text(min_size=1, max_size=20))
def test_no_piece_of_a_valid_text_is_half_a_character(text):
    stream = StreamDecoder(TOKENIZER)
    shown = ""
    for token in TOKENIZER.encode(text):
        shown += stream.push(token)
        assert text.startswith(shown)
    assert shown == text and stream.flush() == ""


def test_an_unfinished_character_shows_at_the_end():
    stream = StreamDecoder(TOKENIZER)
    assert [stream.push(byte) for byte in "é".encode()] == ["", "é"]
    assert stream.push(0xF0) == "" and stream.flush() == "\ufffd"
