"""What an engine has done and holds, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Counters since the engine was made, and what it holds now."""

    running: int
    waiting: int
    pages_used: int
    pages_retained: int
    pages_total: int
    cache_bytes: int
    steps: int
    prefill_tokens: int
    reused_tokens: int
    generated_tokens: int
    preemptions: int
