"""A bounded queue that is fair between clients: whoever sends much waits behind themselves, not
before others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Full(Exception):
    """There is no place for one more."""


class FairQueue(Generic[T]):
    """First in, first out for each client; clients take turns.

    When it is full, the client with most waiting gives up its newest item to one who has less
    waiting (longest-queue drop, as in fair queueing of packets), so that nobody can lock the others
    out by filling it.
    """

    def __init__(self, limit: int) -> None:
        assert limit >= 1
        self.limit = limit
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()  # in the order of their turns
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, client: str, item: T) -> T | None:
        """Add an item at the end of its client's line; the item that had to go for it, if any.
        Raises Full.
        """
        displaced = None
        if self._length >= self.limit:
            longest = max(self._queues, key=lambda name: len(self._queues[name]))
            if len(self._queues[longest]) <= len(self._queues.get(client, ())) + 1:
                raise Full
            displaced = self._queues[longest].pop()
            self._length -= 1
        self._queues.setdefault(client, deque()).append(item)
        self._length += 1
        return displaced

    def peek(self) -> T | None:
        """The item whose turn it is."""
        return next(iter(self._queues.values()))[0] if self._length else None

    def pop(self) -> T:
        """Take that item out; its client goes to the end of the round."""
        client, line = next(iter(self._queues.items()))
        item = line.popleft()
        self._length -= 1
        if line:
            self._queues.move_to_end(client)
        else:
            del self._queues[client]
        return item

    def remove(self, client: str, item: T) -> bool:
        """Take an item out wherever it is; False if it is not waiting."""
        line = self._queues.get(client)
        if line is None or item not in line:
            return False
        line.remove(item)
        self._length -= 1
        if not line:
            del self._queues[client]
        return True
