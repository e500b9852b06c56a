"""Decides which tokens of which sequence go through the model next. Tensor-free: it sees ids and
page numbers.

One step is one forward pass over a ragged row of tokens: the next token of every sequence that is
decoding, and, with what is left of `max_step_tokens`, pieces of the prompts still to be read
(chunked prefill, arXiv 2308.16369), so that a long prompt never stalls the answers being written.
When the cache is full the youngest sequence goes back to the queue and is recomputed later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

from nanochat.engine.pages import PagePool, block_digest
from nanochat.engine.sequence import Sequence

# waiting sequences looked at in one step: bounds the work when thousands of prompts are queued
LOOKAHEAD = 64


@dataclass(frozen=True, kw_only=True)
class ScheduledRow:
    """Tokens `start` to `stop` of a sequence go through the model; keys and values are stored from
    `store_from` on.
    """

    sequence: Sequence
    start: int
    stop: int
    store_from: int

    @property
    def n_tokens(self) -> int:
        return self.stop - self.start

    @property
    def samples(self) -> bool:
        """Whether the last token's logits are wanted: the next token is unknown."""
        return self.stop == len(self.sequence.tokens)


class Scheduler:
    """Two queues, `waiting` (oldest first) and `running` (in order of admission), over one pool of
    pages.
    """

    def __init__(
        self,
        pool: PagePool,
        max_running: int,
        max_step_tokens: int,
        context: int,
        reuse: bool = True,
    ) -> None:
        assert max_step_tokens >= max_running >= 1, (
            "every running sequence needs its token in each step"
        )
        assert pool.max_pages >= -(-context // pool.page_tokens), (
            "the cache must hold one sequence of full length"
        )
        self.pool = pool
        self.max_running = max_running
        self.max_step_tokens = max_step_tokens
        self.reuse = reuse
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._expected: dict[
            bytes, Sequence
        ] = {}  # blocks that a running sequence is about to compute
        self.n_preempted = 0
        self.n_reused_tokens = 0

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a finished or cancelled sequence out, wherever it is; its pages become free or
        retained.
        """
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def plan(self) -> list[ScheduledRow]:
        """The rows of the next step; empty only when there is nothing to do. Report them with
        `computed`.
        """
        rows: list[ScheduledRow] = []
        budget = self.max_step_tokens
        for sequence in list(self.running):
            if budget == 0 or sequence not in self.running:
                continue
            stop = sequence.n_cached + min(sequence.n_pending, budget)
            if self._make_room(sequence, stop):
                rows.append(self._row(sequence, stop))
                budget -= rows[-1].n_tokens
        for sequence in list(islice(self.waiting, LOOKAHEAD)):
            if budget == 0 or len(self.running) >= self.max_running:
                break
            shared = self._shared_pages(sequence)
            if shared is None:
                continue
            if not self._admit(sequence, shared):
                break
            rows.append(self._row(sequence, sequence.n_cached + min(sequence.n_pending, budget)))
            budget -= rows[-1].n_tokens
        assert rows or not (self.running or self.waiting), "no progress"
        return rows

    def computed(self, rows: list[ScheduledRow]) -> None:
        """The rows of the last plan went through the model: their full pages can be found by others
        from now on.
        """
        for row in rows:
            sequence, size = row.sequence, self.pool.page_tokens
            first = sequence.n_stored // size
            sequence.n_cached = row.stop
            sequence.n_stored = max(sequence.n_stored, row.stop)
            if self.reuse:
                self._digest(sequence)
                for block in range(first, sequence.n_stored // size):
                    self.pool.register(sequence.pages[block], sequence.digests[block])
                    self._expected.pop(sequence.digests[block], None)

    def _row(self, sequence: Sequence, stop: int) -> ScheduledRow:
        return ScheduledRow(
            sequence=sequence, start=sequence.n_cached, stop=stop, store_from=sequence.n_stored
        )

    def _make_room(self, sequence: Sequence, n_tokens: int) -> bool:
        """Pages for the first `n_tokens` of a running sequence, by preempting younger ones; False
        if it had to go.
        """
        while not self._extend(sequence, n_tokens):
            youngest = self.running[-1]
            assert youngest is not sequence or len(self.running) > 1, "a sequence alone always fits"
            self._preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _extend(self, sequence: Sequence, n_tokens: int) -> bool:
        while len(sequence.pages) * self.pool.page_tokens < n_tokens:
            page = self.pool.allocate()
            if page is None:
                return False
            sequence.pages.append(page)
        return True

    def _shared_pages(self, sequence: Sequence) -> list[int] | None:
        """Pages in the cache that hold the beginning of a waiting sequence.

        None: another sequence is about to compute more of it, so waiting a step costs less than
        computing it twice (several samples of one prompt, many prompts with the same examples in
        front).
        """
        if not self.reuse:
            return []
        pages: list[int] = []
        self._digest(sequence)
        for digest in sequence.digests:
            page = self.pool.find(digest)
            if page is None:
                return None if digest in self._expected else pages
            pages.append(page)
        return pages

    def _admit(self, sequence: Sequence, shared: list[int]) -> bool:
        """Move a waiting sequence to the running ones if the cache holds all its tokens and a
        little to spare.
        """
        size = self.pool.page_tokens
        needed = (
            -(-len(sequence.tokens) // size) - len(shared) + sum(map(self.pool.is_retained, shared))
        )
        if self.running and self.pool.n_available < needed + len(self.running):
            return False
        for page in shared:
            self.pool.share(page)
        sequence.pages = list(shared)
        sequence.n_stored = len(shared) * size
        sequence.n_cached = min(sequence.n_stored, len(sequence.tokens) - 1)
        sequence.n_reused = sequence.n_cached
        self.n_reused_tokens += sequence.n_cached
        extended = self._extend(sequence, len(sequence.tokens))
        assert extended, "a sequence alone always fits"
        for digest in sequence.digests[len(shared) :]:
            self._expected.setdefault(digest, sequence)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.n_preempted += 1
        self.n_preempted += 1
        self.waiting.appendleft(sequence)

    def preempt_all(self) -> None:
        """Send every running sequence back to the queue: what is in their pages cannot be used."""
        while self.running:
            self._preempt(self.running[-1])

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.pages)
        for digest in sequence.digests:
            if self._expected.get(digest) is sequence:
                del self._expected[digest]
        sequence.pages = []
        sequence.n_cached = sequence.n_stored = 0

    def _digest(self, sequence: Sequence) -> None:
        """Bring the digests of the sequence's full blocks up to date with its tokens."""
        size = self.pool.page_tokens
        for block in range(len(sequence.digests), len(sequence.tokens) // size):
            parent = sequence.digests[-1] if sequence.digests else b""
            sequence.digests.append(
                block_digest(parent, sequence.tokens[block * size : (block + 1) * size])
            )
