"""Where the loader's documents come from: text shards or conversations, seen as one endless
numbered stream.

Stream index i means document i % len(self) of pass i // len(self). `raw(i)` fetches it (cheap, in
stream order), `encode(raw, tokenizer)` turns it into token ids and one weight per token.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nanochat.dataloader.parquet_text import read_group, row_counts
from nanochat.tokenizer.chat_format import is_trained


class Documents(Protocol):
    """What `PackedLoader` reads. splittable: whether a document may be cut to fill a row (text yes,
    chat no).
    """

    splittable: bool

    def __len__(self) -> int: ...

    def raw(self, index: int) -> Any: ...

    def encode(self, raw: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray | None]: ...


class TextDocuments:
    """Texts held in memory (tests, benchmarks, small sources)."""

    splittable = True

    def __init__(self, texts: Sequence[str]):
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def raw(self, index: int) -> str:
        return self.texts[index % len(self.texts)]

    def encode(self, raw: str, tokenizer: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """ids (n,) starting with <|bos|>; weights None means 1 everywhere.

        The <|bos|> that follows a finished document is a target like any other: it is how a model
        learns where documents end.
        """
        return np.asarray(
            tokenizer.encode(raw, prepend=tokenizer.get_bos_token_id()), dtype=np.int32
        ), None


class ShardDocuments(TextDocuments):
    """Rows of parquet files with a column `text`, in file order. Row groups are read when first
    needed, two are kept.

    Raises ValueError naming the file for a shard that cannot be read or has no column `text`. With
    `skip_bad` it is left out with a warning and counted in `bad`; row groups found damaged only
    later give empty documents, so that the number of documents, and with it the order of a resumed
    run, stays as it is.
    """

    def __init__(self, paths: Sequence[str | Path], skip_bad: bool = False):
        self.paths, self.skip_bad = [Path(path) for path in paths], skip_bad
        self.bad: dict[str, str] = {}  # name of a damaged shard -> what is wrong
        if not self.paths:
            raise ValueError(
                "no text shards given: make some with `python -m nanochat.dataset --help`"
            )
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        self._ends: list[int] = []  # documents up to and including that row group
        self._cache: dict[int, Any] = {}
        self._lock = threading.Lock()
        total = 0
        for number, path in enumerate(self.paths):
            for group, rows in enumerate(self._row_groups(path)):
                if rows:
                    total += rows
                    self._groups.append((number, group))
                    self._ends.append(total)
        if total == 0:
            raise ValueError(f"{self.paths[0].parent}: the text shards hold no documents")

    def _row_groups(self, path: Path) -> list[int]:
        try:
            return row_counts(path)
        except ValueError as error:
            self._skip(path, error)
            return []

    def _skip(self, path: Path, error: ValueError) -> None:
        """Note a damaged shard, or raise its error."""
        if not self.skip_bad:
            raise error
        if path.name not in self.bad:
            print(f"WARNING: left out (--skip-bad-shards): {error}", file=sys.stderr, flush=True)
        self.bad[path.name] = str(error)

    def _read_group(self, group: int) -> Any:
        number, inner = self._groups[group]
        try:
            return read_group(self.paths[number], inner)
        except ValueError as error:
            self._skip(self.paths[number], error)
        import pyarrow as pa

        return pa.array([""] * (self._ends[group] - (self._ends[group - 1] if group else 0)))

    def __len__(self) -> int:
        return self._ends[-1]

    def raw(self, index: int) -> str:
        row = index % len(self)
        group = bisect_right(self._ends, row)
        with self._lock:
            if group not in self._cache:
                while len(self._cache) >= 2:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[group] = self._read_group(group)
            texts = self._cache[group]
        return texts[row - (self._ends[group - 1] if group else 0)].as_py() or ""


class ConversationDocuments:
    """The conversations of a task (`task[i]`, see nanochat.tasks), in a new order every pass, the
    same for every rank.

    masked: weight 1 only where the assistant speaks (SFT), else everywhere (mid-training).
    """

    splittable = False

    def __init__(self, task: Any, seed: int = 42, shuffle: bool = True, masked: bool = True):
        if len(task) == 0:
            raise ValueError(
                f"{getattr(task, 'name', 'the task')} has no conversations to train on"
            )
        self.task = task
        self.seed = seed
        self.shuffle = shuffle
        self.masked = masked
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.task)

    def raw(self, index: int) -> Any:
        epoch, row = divmod(index, len(self.task))
        return self.task[int(self._order(epoch)[row]) if self.shuffle else row]

    def encode(self, raw: Any, tokenizer: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """ids (n,) and weights (n,): the weight belongs to the token as a target. Answers marked as
        not to be learnt weigh 0 in either case.
        """
        ids, mask = tokenizer.render_conversation(raw)
        weights: np.ndarray | None = np.asarray(mask, dtype=np.float32)
        if not self.masked:
            weights = self._all_but_marked(raw, mask, tokenizer)
        return np.asarray(ids, dtype=np.int32), weights

    def _all_but_marked(self, raw: Any, mask: list[int], tokenizer: Any) -> np.ndarray | None:
        """Weight 1 everywhere but on answers that are marked; None when there are none of those."""
        if all(map(is_trained, raw["messages"])):
            return None
        plain = [{"role": m["role"], "content": m["content"]} for m in raw["messages"]]
        _, unmarked = tokenizer.render_conversation({"messages": plain})
        return 1 - (np.asarray(unmarked, dtype=np.float32) - np.asarray(mask, dtype=np.float32))

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                while len(self._orders) >= 3:  # lanes may be in neighbouring passes
                    self._orders.pop(next(iter(self._orders)))
                # RandomState, not default_rng: its stream is frozen across numpy versions, and
                # resume depends on it
                seeds = np.array([self.seed % 2**32, epoch % 2**32], dtype=np.uint32)
                self._orders[epoch] = np.random.RandomState(seeds).permutation(len(self.task))
            return self._orders[epoch]
