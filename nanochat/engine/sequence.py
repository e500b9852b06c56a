"""What the engine knows of one answer being written: its tokens, its sampling parameters, how far
it has come.

Tensor-free, so that the scheduler's decisions can be tested on their own.
"""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

FinishReason = Literal["stop", "length", "cancelled", "tool", "error"]
ToolUse = Literal["run", "off", "return"]
MAX_STOP_STRINGS = 16
MAX_LOGPROBS = 20
MAX_SEED = 2**63


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one request's tokens are drawn and when it ends. ValueError naming every field that does
    not fit.

    `temperature` 0 is greedy. `top_k` None or 0, `top_p` None or 1 and `min_p` None or 0 leave that
    filter out. `seed` None draws one. `stop` strings end the answer and are not part of its text.
    `max_tokens` None goes on to the end of the context; tool results count. `logprobs` N reports
    each token's log-probability and the N likeliest. `tools`: "run" evaluates calculator calls and
    writes the result into the answer, "off" treats the delimiters as ordinary tokens, "return" ends
    the answer after a call with finish_reason "tool" (True and False: run, off). `ignore_end`
    writes on past the tokens that end an answer (for measurements and tests).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    logprobs: int | None = None
    tools: ToolUse | bool = "run"
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif isinstance(self.stop, list):
            object.__setattr__(self, "stop", tuple(self.stop))
        if isinstance(self.tools, bool):
            object.__setattr__(self, "tools", "run" if self.tools else "off")
        if problems := self._problems():
            raise ValueError("; ".join(problems))

    def _problems(self) -> list[str]:
        rules = {
            "temperature": (
                _is_number(self.temperature, 0.0),
                "must be a finite number, 0 (greedy) or more",
            ),
            "top_k": (_is_int(self.top_k, 0), "must be a whole number, 1 or more (None or 0: all)"),
            "top_p": (
                _is_number(self.top_p, 0.0) and 0 < self.top_p <= 1,
                "must be above 0 and at most 1",
            ),
            "min_p": (_is_number(self.min_p, 0.0) and self.min_p <= 1, "must be between 0 and 1"),
            "seed": (_is_int(self.seed, 0, MAX_SEED), "must be a whole number from 0 to 2^63"),
            "max_tokens": (_is_int(self.max_tokens, 0), "must be a whole number, 0 or more"),
            "logprobs": (
                _is_int(self.logprobs, 0, MAX_LOGPROBS),
                f"must be a whole number from 0 to {MAX_LOGPROBS}",
            ),
            "tools": (self.tools in ("run", "off", "return"), "must be run, off or return"),
            "stop": (
                _are_stop_strings(self.stop),
                f"must be at most {MAX_STOP_STRINGS} strings, none of them empty",
            ),
        }
        required = ("temperature", "tools", "stop")
        return [
            f"{name}={getattr(self, name)!r}: {rule}"
            for name, (fits, rule) in rules.items()
            if not fits and (name in required or getattr(self, name) is not None)
        ]

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def _is_int(value: Any, low: int, high: int | None = None) -> TypeGuard[int]:
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value >= low
        and (high is None or value <= high)
    )


def _is_number(value: Any, low: float) -> TypeGuard[float]:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= low
    )


def _are_stop_strings(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= MAX_STOP_STRINGS
        and all(isinstance(s, str) and s for s in value)
    )


@dataclass(eq=False)
class Sequence:
    """One answer in the making: the prompt's tokens followed by what was generated.

    Keys and values of `tokens[:n_stored]` are in `pages`; `tokens[:n_cached]` need no further
    forward pass. The two differ only when a prefix found in the cache covers every token: the last
    one is run again for its logits, and its keys and values, which other sequences may be reading,
    are not written a second time.
    """

    id: int
    tokens: list[int]
    params: SamplingParams
    n_prompt: int = 0
    n_cached: int = 0
    n_stored: int = 0
    n_reused: int = 0
    n_preempted: int = 0
    pages: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    finish_detail: str = ""
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)
        seed = self.params.seed
        self.random = random.Random(
            int.from_bytes(os.urandom(8), "little") if seed is None else seed
        )

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_pending(self) -> int:
        """Tokens that still have to go through the model before the next one can be drawn."""
        return len(self.tokens) - self.n_cached

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def finish(self, reason: FinishReason, detail: str = "") -> None:
        """The first reason stays: a cancellation after the end changes nothing."""
        if self.finish_reason is None:
            self.finish_reason, self.finish_detail = reason, detail


def sample_seed(seed: int | None, index: int) -> int | None:
    """Seed of sample `index` of a request: sample 0 draws what a request for one sample would have
    drawn.
    """
    return None if seed is None else (seed + index * 0x9E3779B97F4A7C15) % MAX_SEED
