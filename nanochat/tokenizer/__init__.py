"""Text to token ids and back: byte-level BPE, the chat format with its loss mask, and decoding as a
stream.
"""

from nanochat.tokenizer.bpe import Tokenizer, open_tokenizer
from nanochat.tokenizer.special_tokens import SPECIAL_TOKENS
from nanochat.tokenizer.stream import StreamDecoder

__all__ = ["SPECIAL_TOKENS", "StreamDecoder", "Tokenizer", "open_tokenizer"]
