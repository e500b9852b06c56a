"""`nanochat data fetch`: what training and evaluation read besides text shards, for machines about
to go offline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nanochat.config import Positional


@dataclass
class FetchConfig:
    """Download what is not here yet: `extras` (eval bundle, identity, words), `tasks`
    (conversations, benchmarks).
    """

    what: Positional[tuple[Literal["extras", "tasks"], ...]] = ("extras", "tasks")
    """What to fetch."""
    mirror: str | None = None
    """Folder or address that has the extras under their own names (the task data honours
    HF_ENDPOINT).
    """


def fetch(cfg: FetchConfig) -> str:
    """Fetch; returns the line to print. Raises ValueError with everything that could not be had."""
    from nanochat.dataset.extras import fetch_extras
    from nanochat.tasks.task_data import fetch_task_data

    lines, failures = [], []
    for what in cfg.what:
        try:
            made = fetch_extras(cfg.mirror) if what == "extras" else fetch_task_data()
            lines.append(f"{what}: {len(made)} there")
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\n".join(failures))
    return "\n".join(lines)
