"""A byte-level vocabulary as Hugging Face's and llama.cpp's tokenizers write it: bytes as printable
letters, and merges as pairs.
"""

from __future__ import annotations

from nanochat.tokenizer import Tokenizer


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: itself where it is printable, else one from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    others = [byte for byte in range(256) if byte not in letters]
    return {**letters, **{byte: chr(256 + place) for place, byte in enumerate(others)}}


def token_spellings(tokenizer: Tokenizer) -> list[str]:
    """Every token in the order of the ids, special tokens as they are spelled."""
    letters = byte_letters()
    special = {number: name for name, number in tokenizer.special_tokens.items()}
    return [
        special.get(number) or "".join(letters[byte] for byte in tokenizer.decode_bytes([number]))
        for number in range(tokenizer.get_vocab_size())
    ]


def merge_pairs(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Every pair of tokens that together are a token, in the order in which they merge.

    Ours merges whatever makes the token of the lowest rank, so a token stands here once for each
    way to cut it in two.
    """
    letters = byte_letters()
    n_merges = tokenizer.get_vocab_size() - len(tokenizer.special_tokens)
    ranks = {tokenizer.decode_bytes([number]): number for number in range(n_merges)}

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    pairs = []
    for token in ranks:
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        ways = [(a, b) for a, b in cuts if a in ranks and b in ranks]
        ways.sort(key=lambda way: (ranks[way[0]], ranks[way[1]]))
        pairs += [(spelled(a), spelled(b)) for a, b in ways]
    return pairs
