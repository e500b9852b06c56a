"""Environment variables: what nanochat reads, checked when a command starts."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

from nanochat.runtime.base_dir import expanded
from nanochat.runtime.errors import rank
from nanochat.runtime.suggest import suggestion

DTYPES = ("float32", "bfloat16", "float16")


def folder(value: str) -> None:
    if not expanded(value).is_dir():
        raise ValueError("there is no such folder; name one that is there")


def dtype(value: str) -> str:
    if value not in DTYPES:
        raise ValueError(f"unknown type; use one of {', '.join(DTYPES)}")
    return value


def switch(value: str) -> None:
    if value not in ("0", "1"):
        raise ValueError("use 1 for on or 0 for off")


def switch_or_folder(value: str) -> None:
    if value not in ("0", "1") and "/" not in value:
        raise ValueError("use 0 for off, 1 for on, or a folder such as /tmp/native")


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e7:  # some months: longer overflows a thread's timeout
        raise ValueError("must be a number of seconds above 0, e.g. 60")
    return number


# Variable -> what reads its value and raises ValueError with the reason and the fix.
READERS: dict[str, Callable[[str], object]] = {
    "NANOCHAT_BASE_DIR": expanded,
    "NANOCHAT_DATA_DIR": folder,
    "NANOCHAT_DEBUG": switch,
    "NANOCHAT_DIST_TIMEOUT_S": seconds,
    "NANOCHAT_DTYPE": dtype,
    "NANOCHAT_HEARTBEAT_S": seconds,
    "NANOCHAT_NATIVE": switch_or_folder,
    "NANOCHAT_TRACKER_WAIT_S": seconds,
    # for scripts/*.sh
    "NANOCHAT_EXTRAS": str,
    "NANOCHAT_PYTHON": str,
    "NANOCHAT_REPLACE": str,
    "NANOCHAT_SHARDS": str,
    "NANOCHAT_SKIP_SETUP": str,
    "NANOCHAT_TORCH_INDEX": str,
    "NANOCHAT_VENV": str,
    "NANOCHAT_DATABASE": str,
}


def read_variable(name: str, default: object = None) -> Any:
    """The variable's value, or `default` where it is unset or empty. Raises ValueError."""
    value = os.environ.get(name)
    if not value:
        return default
    try:
        return READERS[name](value)
    except ValueError as error:
        raise ValueError(f"{name}={value}: {error}") from None


def check_variables() -> None:
    """Raise ValueError with every variable whose value cannot be used; warn of unknown names."""
    problems = []
    for name in sorted(name for name in os.environ if name.startswith("NANOCHAT_")):
        if name not in READERS:
            if rank() == "0":
                fix = suggestion(name, READERS, "docs/reference/environment.md lists all")
                print(f"warning: {name}: nothing reads this variable{fix}", file=sys.stderr)
            continue
        try:
            read_variable(name)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
