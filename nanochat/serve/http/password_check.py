"""Looking at passwords: a few at a time, and slower the more often somebody guesses."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from nanochat.serve.api_error import ApiError, busy
from nanochat.store.passwords import hash_password, password_fits

HASHES_AT_ONCE = 2  # each takes 64 MiB and a core
FREE_TRIES = {"name": 5, "address": 20}
LONGEST_S = 900.0
FORGOTTEN_S = 3600.0
MOST_REMEMBERED = 20_000


@dataclass(kw_only=True)
class Tries:
    """Log-ins that failed, and until when no other is looked at."""

    count: int = 0
    last_s: float = 0.0
    blocked_s: float = 0.0


class PasswordCheck:
    """Lives in one event loop."""

    def __init__(self) -> None:
        self.throttle = LoginThrottle()
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)

    async def fits(self, name: str, address: str, password: str, kept: str | None) -> bool:
        """Whether it is the password of which `kept` is the hash. ApiError 429 when too many were
        not.
        """
        self.throttle.begin(name, address)
        async with self._hashing:
            fits = await asyncio.to_thread(password_fits, password, kept)
        if fits:
            self.throttle.succeeded(name, address)
        return fits

    async def hashed(self, password: str) -> str:
        """ValueError for one that is too easy."""
        async with self._hashing:
            return await asyncio.to_thread(hash_password, password)


class LoginThrottle:
    """Slows down by name and by address, twice as long each time. Counts a log-in as failed until
    it has succeeded, so that many at once gain nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._tries: OrderedDict[tuple[str, str], Tries] = OrderedDict()

    def begin(self, name: str, address: str) -> None:
        """Before the password is looked at. ApiError 429: come back later."""
        now = self.clock()
        of_both = [self._of("name", name, now), self._of("address", address, now)]
        wait_s = max(tries.blocked_s for tries in of_both) - now
        if wait_s > 0:
            raise too_many(wait_s)
        for kind, tries in zip(FREE_TRIES, of_both, strict=True):
            tries.count += 1
            tries.last_s = now
            over = tries.count - FREE_TRIES[kind]
            if over >= 0:
                tries.blocked_s = now + min(LONGEST_S, 2.0 ** min(over, 20))

    def succeeded(self, name: str, address: str) -> None:
        """The password was right: these tries were no guesses."""
        self._tries.pop(("name", name), None)
        tries = self._tries.get(("address", address))
        if tries is not None:
            tries.count -= 1
            tries.blocked_s = 0.0 if tries.count < FREE_TRIES["address"] else tries.blocked_s

    def _of(self, kind: str, who: str, now: float) -> Tries:
        tries = self._tries.pop((kind, who), None)
        if tries is None or tries.last_s < now - FORGOTTEN_S:
            tries = Tries()
        self._tries[kind, who] = tries  # the newest last
        while len(self._tries) > MOST_REMEMBERED:
            self._tries.popitem(last=False)
        return tries


def too_many(wait_s: float) -> ApiError:
    return busy(f"too many log-ins have failed; try again in {wait_s:.0f} s", wait_s)
