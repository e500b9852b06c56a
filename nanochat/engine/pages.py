"""Which page of the key/value cache belongs to whom: reference counts, prefix look-up,
least-recently-used retention.

Bookkeeping alone; the tensors are in kv_cache.py. A page holds the keys and values of `page_tokens`
consecutive tokens of every layer. A full page is known by a digest of all tokens up to its end, so
two sequences that begin alike hold the same pages (the idea of paged attention, arXiv 2309.06180).
Page 0 is never handed out: it takes writes that nobody will read.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import OrderedDict
from collections.abc import Sequence


def block_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Digest of a block of tokens that follows the blocks digested in `parent`."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()


class PagePool:
    """Hands out pages 1 to `max_pages` and remembers the contents of full ones after their last
    user has gone.

    A page is free, in use (reference count above 0), or retained: unused, its contents still known,
    taken back in least-recently-used order. At most `max_retained` pages are retained, so memory
    follows the tokens in use.
    """

    def __init__(self, max_pages: int, page_tokens: int, max_retained: int) -> None:
        assert max_pages > 0 and page_tokens > 0 and max_retained >= 0
        self.max_pages = max_pages
        self.page_tokens = page_tokens
        self.max_retained = max_retained
        self._free: list[int] = []  # a heap: low numbers first, so that the tensors stay small
        self._next = 1
        self._references: dict[int, int] = {}
        self._page_of: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}
        self._retained: OrderedDict[int, None] = OrderedDict()

    @property
    def n_used(self) -> int:
        return len(self._references)

    @property
    def n_retained(self) -> int:
        return len(self._retained)

    @property
    def n_available(self) -> int:
        """Pages that `allocate` can still hand out, retained ones included."""
        return self.max_pages - self.n_used

    @property
    def n_reached(self) -> int:
        """One more than the highest page in use or retained: what the tensors must hold."""
        return self._next

    def allocate(self) -> int | None:
        """A page for one user, or None when every page is in use."""
        if self._free:
            page = heapq.heappop(self._free)
        elif self._next <= self.max_pages:
            page, self._next = self._next, self._next + 1
        elif self._retained:
            page, _ = self._retained.popitem(last=False)
            self._forget(page)
        else:
            return None
        self._references[page] = 1
        return page

    def find(self, digest: bytes) -> int | None:
        """The page with these contents, without taking it."""
        return self._page_of.get(digest)

    def is_retained(self, page: int) -> bool:
        return page in self._retained

    def share(self, page: int) -> None:
        """One more user for a page that holds known contents."""
        self._retained.pop(page, None)
        self._references[page] = self._references.get(page, 0) + 1

    def register(self, page: int, digest: bytes) -> None:
        """The page is full now. When another page already holds the same, this one stays its user's
        own.
        """
        assert self._references.get(page), "only a page in use can be registered"
        if digest not in self._page_of and page not in self._digest_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def release(self, pages: Sequence[int]) -> None:
        """One user fewer for each page, given in sequence order: a prefix outlives what came after
        it.
        """
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page]:
                continue
            del self._references[page]
            if page in self._digest_of and self.max_retained:
                self._retained[page] = None
            else:
                self._forget(page)
                heapq.heappush(self._free, page)
        while len(self._retained) > self.max_retained:
            page, _ = self._retained.popitem(last=False)
            self._forget(page)
            heapq.heappush(self._free, page)

    def drop_retained(self) -> None:
        """Forget all retained contents, and the contents of pages in use too: nothing old is found
        again.
        """
        for page in self._retained:
            heapq.heappush(self._free, page)
        self._retained.clear()
        self._page_of.clear()
        self._digest_of.clear()
        highest = max(self._references, default=0)
        self._free = [page for page in self._free if page < highest]
        heapq.heapify(self._free)
        self._next = highest + 1

    def _forget(self, page: int) -> None:
        digest = self._digest_of.pop(page, None)
        if digest is not None:
            del self._page_of[digest]

    def check(self) -> None:
        """Assert that every page is in exactly one state (for tests)."""
        free, used, retained = set(self._free), set(self._references), set(self._retained)
        assert len(free) == len(self._free) and not (
            free & used or free & retained or used & retained
        )
        assert (
            free | used | retained == set(range(1, self._next)) and self._next <= self.max_pages + 1
        )
        assert all(count > 0 for count in self._references.values())
        assert {page: digest for digest, page in self._page_of.items()} == self._digest_of
        assert set(self._digest_of) <= used | retained and retained <= set(self._digest_of)
