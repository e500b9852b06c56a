"""How OpenMP's threads wait for work; it reads this when torch is loaded, so it is said before."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Unless the user has decided it, waiting threads sleep instead of spinning.

    They wait between any two operations. Spinning, they take the cores that others need: beside
    another program a training step on two cores took 7.3 s instead of 1.3.
    """
    policy = os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if policy.lower() == "passive":  # GNU's OpenMP needs no more; Intel's and LLVM's wait 0.2 s
        os.environ.setdefault("KMP_BLOCKTIME", "0")
