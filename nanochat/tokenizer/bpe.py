"""The tokenizer: byte-level BPE. rustbpe trains it, tiktoken encodes with it, a JSON file keeps
it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiktoken

from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.files import atomic_write
from nanochat.tokenizer import chat_format
from nanochat.tokenizer.public_pickle import read_encoding_pickle
from nanochat.tokenizer.special_tokens import BOS, SPECIAL_TOKENS

if TYPE_CHECKING:
    import torch

FORMAT = "nanochat-bpe-1"
FILES = ("tokenizer.json", "tokenizer.pkl")  # either is a tokenizer; ours comes first
# GPT-4's pattern with at most two digits a group instead of three: in a small vocabulary a thousand
# tokens for three-digit numbers cost more than they save. Public checkpoints were trained with
# exactly this string.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# The same with digits one at a time, which llama.cpp can do: for models meant for GGUF files.
SPLIT_DIGITS = SPLIT_PATTERN.replace(r"\p{N}{1,2}", r"\p{N}")
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MAX_VOCAB_SIZE = 2**21
# The regex engines under tiktoken and rustbpe give up on a run of a million blanks. Longer runs
# than this are cut, so that ids are those of an engine without that limit wherever there is one.
LONGEST_BLANK = 900_000
# What the engines take for blank; Python counts four separators more.
_BLANKS = re.compile(r"[^\S\x1c-\x1f]+")


class Tokenizer:
    """Text <-> token ids. Ids 0..M-1 are byte sequences in merge order, the special tokens follow
    them.

    Special tokens come only from `encode_special` and chat rendering: their spelling inside a text
    is ordinary text.
    """

    def __init__(
        self, ranks: dict[bytes, int], special_tokens: dict[str, int], pattern: str = SPLIT_PATTERN
    ) -> None:
        _check_vocabulary(ranks, special_tokens)
        self.pattern = pattern
        self.special_tokens = dict(special_tokens)
        self._tokens: list[bytes] = [b""] * (len(ranks) + len(special_tokens))
        for token, rank in ranks.items():
            self._tokens[rank] = token
        for name, rank in special_tokens.items():
            self._tokens[rank] = name.encode()
        try:
            self._encoding = tiktoken.Encoding(
                "nanochat", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"tokenizer: the split pattern is not usable: {error}") from None

    # --- where one comes from

    @classmethod
    def train(
        cls, text_iterator: Iterable[str], vocab_size: int, pattern: str = SPLIT_PATTERN
    ) -> Tokenizer:
        """Learn merges until the vocabulary, special tokens included, has `vocab_size` entries.

        Little text may hold fewer distinct pairs than that: the vocabulary is then smaller (check
        `get_vocab_size`), so that one small file is enough to try everything. No text at all is a
        ValueError.
        """
        if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
            raise ValueError(
                f"vocab_size={vocab_size} is impossible: 256 bytes and {len(SPECIAL_TOKENS)} "
                "special tokens make "
                f"{MIN_VOCAB_SIZE} the least and {MAX_VOCAB_SIZE:,} is the most; pick a value "
                "between"
            )
        import rustbpe

        seen = _Pieces(text_iterator)
        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(iter(seen), vocab_size - len(SPECIAL_TOKENS), pattern=pattern)
        if not seen.any_text:
            raise ValueError(
                "no text to train a tokenizer on: the documents are empty or there are none"
            )
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        return cls(ranks, _specials_after(len(ranks)), pattern)

    @classmethod
    def byte_level(cls) -> Tokenizer:
        """256 bytes and the special tokens, nothing learnt: for tests and as a fallback that needs
        no file.
        """
        return cls({bytes([byte]): byte for byte in range(256)}, _specials_after(256))

    @classmethod
    def from_pretrained(cls, name: str) -> Tokenizer:
        """One of tiktoken's vocabularies ("gpt2", "cl100k_base", ...) with this project's special
        tokens after it.

        GPT-2's own <|endoftext|> keeps its id. tiktoken downloads a vocabulary once into
        $TIKTOKEN_CACHE_DIR.
        """
        if name not in tiktoken.list_encoding_names():
            raise ValueError(
                f"tokenizer {name!r} is unknown; tiktoken has "
                f"{', '.join(tiktoken.list_encoding_names())}"
            )
        try:
            known = tiktoken.get_encoding(name)
        except (OSError, ValueError) as error:  # requests' exceptions are OSErrors
            raise ValueError(
                f"tokenizer {name!r} could not be fetched ({type(error).__name__}); fetch it "
                "once on a machine with "
                "internet and point TIKTOKEN_CACHE_DIR at the folder"
            ) from None
        ranks = known._mergeable_ranks
        extra = [token for token, rank in known._special_tokens.items() if rank == len(ranks)]
        return cls(ranks, _specials_after(len(ranks), extra), known._pat_str)

    @classmethod
    def load(cls, place: Path | str | None = None) -> Tokenizer:
        """From a `tokenizer/` directory (default: the one under the base directory), ours or a
        public one, or from the one file in it that counts: tokenizer.json or tokenizer.pkl.
        """
        place = base_dir() / "tokenizer" if place is None else expanded(place)
        paths = [place] if place.is_file() else [place / name for name in FILES]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise ValueError(
                f"no tokenizer in {place}; train one with `python -m scripts.tok_train`"
            )
        try:
            if path.suffix == ".json":
                return _from_json(path.read_bytes())
            state = read_encoding_pickle(path.read_bytes())
            return cls(state.ranks, state.special_tokens, state.pattern)
        except (OSError, ValueError) as error:
            raise ValueError(f"tokenizer in {place}: {error}") from None

    def save(self, directory: Path | str) -> None:
        """Write `tokenizer.json` and `token_bytes.pt`, each atomically."""
        import torch

        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(self.token_bytes(), buffer)
        atomic_write(folder / "token_bytes.pt", buffer.getvalue())
        content = {
            "format": FORMAT,
            "identity": self.identity(),
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "tokens_base64": [
                base64.b64encode(token).decode() for token in self._tokens[: self._merges]
            ],
        }
        atomic_write(
            folder / "tokenizer.json", json.dumps(content, indent=0, ensure_ascii=True) + "\n"
        )

    # --- text to ids

    def encode(
        self,
        text: str | Sequence[str],
        prepend: int | str | None = None,
        append: int | str | None = None,
        num_threads: int = 8,
    ) -> Any:
        """Ids of one text (list[int]) or of many (list[list[int]], in `num_threads` threads).

        `prepend` and `append` are an id or a special token's spelling, put around every text.
        """
        before = [] if prepend is None else [self._special_id(prepend)]
        after = [] if append is None else [self._special_id(append)]
        if isinstance(text, str):
            return before + self._encode_one(text) + after
        if any(len(item) > LONGEST_BLANK for item in text):
            rows = [self._encode_one(item) for item in text]
        else:
            rows = self._encoding.encode_ordinary_batch(list(text), num_threads=num_threads)
        return [before + row + after for row in rows] if before or after else rows

    def _encode_one(self, text: str) -> list[int]:
        pieces = cut_blank_runs(text)
        if len(pieces) == 1:
            return self._encoding.encode_ordinary(text)
        return [token for piece in pieces for token in self._encoding.encode_ordinary(piece)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.encode(*args, **kwargs)

    def encode_special(self, token: str) -> int:
        """The id of a special token. ValueError when there is none of that spelling."""
        if token not in self.special_tokens:
            raise ValueError(
                f"{token!r} is no special token; there are {', '.join(self.special_tokens)}"
            )
        return self.special_tokens[token]

    def _special_id(self, token: int | str) -> int:
        return token if isinstance(token, int) else self.encode_special(token)

    # --- ids to text

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that form no character become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of the ids, special tokens spelled out. ValueError for an id outside the
        vocabulary.
        """
        size = len(self._tokens)
        for token_id in ids:
            if not 0 <= token_id < size:
                raise ValueError(f"token id {token_id} is outside the vocabulary of {size:,}")
        return b"".join([self._tokens[token_id] for token_id in ids])

    def id_to_token(self, token_id: int) -> str:
        """The text of one token, for showing to people."""
        return self.decode([token_id])

    # --- facts about it

    @property
    def _merges(self) -> int:
        return len(self._tokens) - len(self.special_tokens)

    def get_vocab_size(self) -> int:
        return len(self._tokens)

    def get_bos_token_id(self) -> int:
        return self.encode_special(BOS)

    def get_special_tokens(self) -> set[str]:
        return set(self.special_tokens)

    def token_bytes(self) -> torch.Tensor:
        """UTF-8 bytes of each token, (V,) int32; 0 for special tokens, which bits per byte leaves
        out.
        """
        import torch

        sizes = [len(token) for token in self._tokens[: self._merges]]
        return torch.tensor(sizes + [0] * len(self.special_tokens), dtype=torch.int32)

    def identity(self) -> str:
        """SHA-256 of pattern, tokens and special tokens: equal exactly when two tokenizers encode
        alike.
        """
        digest = hashlib.sha256(self.pattern.encode())
        for token in self._tokens:
            digest.update(len(token).to_bytes(4, "little") + token)
        digest.update(json.dumps(sorted(self.special_tokens.items())).encode())
        return digest.hexdigest()

    # conversations, by chat_format.py

    def render_conversation(
        self, conversation: dict[str, Any], max_tokens: int | None = None
    ) -> tuple[list[int], list[int]]:
        """(ids, mask) of a conversation; mask 1 = the assistant's own tokens. Cut to `max_tokens`
        from the right.
        """
        return chat_format.render_conversation(self, conversation, max_tokens)

    def render_for_completion(self, conversation: dict[str, Any]) -> list[int]:
        """Ids that ask for the assistant's next message; a last assistant message is left out."""
        return chat_format.render_for_completion(self, conversation)


def open_tokenizer(name: str | None = None) -> Tokenizer:
    """What `--tokenizer` means: nothing = the trained one, a directory, one of its files, or one of
    tiktoken's names ("gpt2").
    """
    if not name or expanded(name).exists():
        return Tokenizer.load(name or None)
    return Tokenizer.from_pretrained(name)


def cut_blank_runs(text: str) -> list[str]:
    """The text in pieces none of which has an endless run of whitespace; almost always the text
    itself. One pass over it, whatever it is made of.
    """
    if len(text) <= LONGEST_BLANK:
        return [text]
    cuts = [0]
    for run in _BLANKS.finditer(text):
        cuts += range(run.start() + LONGEST_BLANK, run.end(), LONGEST_BLANK)
    return [text[start:stop] for start, stop in zip(cuts, [*cuts[1:], len(text)], strict=True)]


class _Pieces:
    """What rustbpe reads: texts it cannot choke on, and whether there were any."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.any_text = False

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.any_text = self.any_text or bool(text)
            for piece in cut_blank_runs(text):
                # lone surrogates (possible in JSON) have no UTF-8 form and would abort the training
                yield piece.encode("utf-8", errors="replace").decode()


def _specials_after(first_id: int, extra: Sequence[str] = ()) -> dict[str, int]:
    return {token: first_id + offset for offset, token in enumerate([*extra, *SPECIAL_TOKENS])}


def _check_vocabulary(ranks: dict[bytes, int], special_tokens: dict[str, int]) -> None:
    if missing := [token for token in SPECIAL_TOKENS if token not in special_tokens]:
        raise ValueError(f"vocabulary without the special tokens {', '.join(missing)}")
    size = len(ranks) + len(special_tokens)
    if size > MAX_VOCAB_SIZE or sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(
            f"merge ranks must be 0..{len(ranks) - 1}, each once, and at most {MAX_VOCAB_SIZE:,} "
            "of them"
        )
    if sorted(special_tokens.values()) != list(range(len(ranks), size)):
        raise ValueError(f"special token ids must be {len(ranks)}..{size - 1}, each once")
    if missing_bytes := sum(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError(f"{missing_bytes} of the 256 single bytes have no token")


def _from_json(data: bytes) -> Tokenizer:
    try:
        content = json.loads(data)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT}")
        tokens = [base64.b64decode(token, validate=True) for token in content["tokens_base64"]]
        special = {str(name): int(rank) for name, rank in content["special_tokens"].items()}
        tokenizer = Tokenizer(
            {token: rank for rank, token in enumerate(tokens)}, special, content["pattern"]
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"tokenizer.json is damaged: {error}; run `python -m scripts.tok_train` again"
        ) from None
    if tokenizer.identity() != content.get("identity"):
        raise ValueError(
            "tokenizer.json is damaged: its contents do not match its identity; train or copy it "
            "again"
        )
    return tokenizer
