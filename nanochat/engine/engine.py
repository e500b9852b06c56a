"""The engine: many requests over one model, one step at a time.

A step is: plan rows (scheduler), run them through the model (runner), draw tokens (sampler), tell
the requests. Whoever serves requests calls `submit` and `step`; `generate`, `generate_batch` and
`complete` do that for themselves.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from nanochat.engine.pages import PagePool
from nanochat.engine.request import Completion, Event, Request, advance, closing_event
from nanochat.engine.runner import Runner, Static
from nanochat.engine.scheduler import Scheduler
from nanochat.engine.sequence import SamplingParams, Sequence
from nanochat.engine.special import SpecialIds
from nanochat.engine.stats import EngineStats
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

DEFAULT_CACHE_BYTES = 1 << 30


class Engine:
    """Continuous batching over one model.

    `max_running` sequences share a step of at most `max_step_tokens` tokens. The cache holds
    `cache_tokens` tokens in pages of `page_tokens`; unless told otherwise as many as fit 1 GiB, but
    always two full contexts. `reuse_prefixes` keeps up to half of it after its sequences end, for
    prompts that begin alike. `native` and `static`: see Runner.

    `submit`, `cancel` and `stats` may be called from any thread at any time; only one thread at a
    time is in `step`.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        max_running: int = 32,
        max_step_tokens: int = 512,
        cache_tokens: int | None = None,
        page_tokens: int = 16,
        reuse_prefixes: bool = True,
        native: bool = True,
        static: Static = None,
    ) -> None:
        self.model, self.tokenizer, self.special = model, tokenizer, SpecialIds.of(tokenizer)
        self.context = model.config.sequence_len
        n_tokens = min(model.config.vocab_size, tokenizer.get_vocab_size())
        self.runner = Runner(model, page_tokens, n_tokens, native, static)
        tokens = self._default_cache_tokens(max_running) if cache_tokens is None else cache_tokens
        if tokens < self.context:
            raise ValueError(
                f"cache_tokens={tokens}: must hold one full context, {self.context} tokens or more"
            )
        if not 1 <= max_running <= max_step_tokens:
            raise ValueError(
                f"max_running={max_running}: must be from 1 to max_step_tokens={max_step_tokens}"
            )
        max_pages = -(-tokens // page_tokens)
        self.pool = PagePool(max_pages, page_tokens, max_pages // 2 if reuse_prefixes else 0)
        self.scheduler = Scheduler(
            self.pool, max_running, max_step_tokens, self.context, reuse_prefixes
        )
        self._ids = itertools.count(1)
        self._inbox: deque[Request] = deque()
        self._cancelled: deque[Request] = deque()
        self._owner: dict[Sequence, tuple[Request, Any]] = {}
        self._lock = threading.Lock()
        self._weights_seen = self._weights_version()
        self._steps = self._prefilled = self._generated = 0

    def _default_cache_tokens(self, max_running: int) -> int:
        config = self.model.config
        token_bytes = 2 * config.n_layer * config.kv_dim * self.runner.dtype.itemsize
        return max(
            2 * self.context, min(max_running * self.context, DEFAULT_CACHE_BYTES // token_bytes)
        )

    # --- the core: submit, cancel, step

    def submit(
        self, tokens: Iterable[int], params: SamplingParams | None = None, n: int = 1
    ) -> Request:
        """Queue a prompt for `n` samples. ValueError when it is empty, too long, or not made of
        this model's ids.
        """
        prompt = self._checked_prompt(tokens)
        if n < 1:
            raise ValueError(f"n={n}: must be 1 or more")
        request = Request.create(
            next(self._ids), prompt, params or SamplingParams(), n, self.tokenizer, self.special
        )
        self._inbox.append(request)
        return request

    def _checked_prompt(self, tokens: Iterable[int]) -> list[int]:
        prompt = list(tokens)
        if not prompt:
            raise ValueError(
                "tokens=[]: a prompt needs at least one token; begin with the bos token"
            )
        if len(prompt) > self.context:
            raise ValueError(
                f"tokens: the prompt has {len(prompt)} tokens, the context holds {self.context}; "
                "cut it"
            )
        n_vocab = self.model.config.vocab_size
        for token in prompt:
            if not isinstance(token, int) or not 0 <= token < n_vocab:
                raise ValueError(
                    f"tokens: {token!r} is no token id of this model, which has ids 0 to "
                    f"{n_vocab - 1}"
                )
        return prompt

    def cancel(self, request: Request) -> None:
        """End a request; its samples finish as "cancelled" in the next step. Nothing happens to a
        finished one.
        """
        request.cancelled = True
        self._cancelled.append(request)

    @property
    def has_work(self) -> bool:
        return bool(
            self._inbox or self._cancelled or self.scheduler.waiting or self.scheduler.running
        )

    def step(self) -> list[Event]:
        """One forward pass for whoever is due; the events it made, which are also in each request's
        `events`.
        """
        with self._lock:
            events = self._take_messages()
            rows = self.scheduler.plan()
            if rows:
                drawn_tokens = self.runner.draw(rows, self.pool.n_reached)
                self.scheduler.computed(rows)
                due = [row.sequence for row in rows if row.samples]
                self._steps += 1
                self._prefilled += sum(row.n_tokens for row in rows) - len(due)
                self._generated += len(due)
                for sequence, drawn in zip(due, drawn_tokens, strict=True):
                    request, own = self._owner[sequence]
                    events += advance(request, own, drawn, self.special, self.context)
                    if sequence.finished:
                        self._end(sequence)
            return _delivered(events)

    def _take_messages(self) -> list[Event]:
        events: list[Event] = []
        while self._inbox:
            request = self._inbox.popleft()
            if not self._owner:
                self._forget_old_weights()
            for own in request.samples:
                self._owner[own.sequence] = request, own
                self.scheduler.add(own.sequence)
                if request.params.max_tokens == 0:
                    events.append(self._close(request, own, "length", "max_tokens=0 reached"))
        while self._cancelled:
            request = self._cancelled.popleft()
            for own in request.samples:
                if not own.sequence.finished and own.sequence in self._owner:
                    events.append(self._close(request, own, "cancelled", ""))
        return events

    def _close(self, request: Request, own: Any, reason: Any, detail: str) -> Event:
        own.sequence.finish(reason, detail)
        self._end(own.sequence)
        return closing_event(request, own)

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        del self._owner[sequence]

    def fail_all(self, detail: str) -> list[Event]:
        """End everything with finish_reason "error" after `step` raised; the engine can be used
        again afterwards.
        """
        with self._lock:
            events = self._take_messages()
            events += [
                self._close(request, own, "error", detail)
                for request, own in list(self._owner.values())
            ]
            self.pool.drop_retained()
            return _delivered(events)

    def stats(self) -> EngineStats:
        scheduler, pool = self.scheduler, self.pool
        return EngineStats(
            len(scheduler.running),
            len(scheduler.waiting) + len(self._inbox),
            pool.n_used,
            pool.n_retained,
            pool.max_pages,
            self.runner.cache.bytes_held(),
            self._steps,
            self._prefilled,
            scheduler.n_reused_tokens,
            self._generated,
            scheduler.n_preempted,
        )

    def trim(self) -> None:
        """Forget retained prefixes and give their memory back."""
        with self._lock:
            self.pool.drop_retained()
            self.runner.trim(self.pool.n_reached)

    def _weights_version(self) -> list[tuple[int, int]]:
        """Differs after a weight was changed in place (an optimizer step, a load) or replaced (a
        quantisation).
        """
        tensors = itertools.chain(self.model.parameters(), self.model.buffers())
        return [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]

    def _forget_old_weights(self) -> None:
        version = self._weights_version()
        if version != self._weights_seen:
            self._weights_seen = version
            self.runner.refresh()
            self.pool.drop_retained()

    # --- whole answers

    def stream(self, request: Request) -> Iterator[Event]:
        """The request's events as they come, until it is finished. Stopping early cancels it."""
        try:
            while request.events or not request.finished:
                if not request.events:
                    self.step()
                while request.events:
                    yield request.events.popleft()
        finally:
            self._abandon([request])

    def _abandon(self, requests: list[Request]) -> None:
        """Take out what is unfinished, at once and without another forward pass (the last one may
        have raised).
        """
        for request in requests:
            if not request.finished:
                self.cancel(request)
        if self._cancelled:
            with self._lock:
                _delivered(self._take_messages())

    def complete(
        self,
        prompts: Iterable[Iterable[int]],
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        *,
        num_samples: int = 1,
        **params: Any,
    ) -> list[Completion]:
        """Answer many prompts together -> one Completion each, in order (`num_samples` after
        another for each prompt).

        Greedy unless told otherwise; `params` are further fields of SamplingParams. A `seed` is the
        first prompt's: the following prompts count up from it, so that equal prompts differ.
        """
        seed = params.pop("seed", None)
        requests = []
        for index, prompt in enumerate(prompts):
            own = None if seed is None else seed + index
            sampling = SamplingParams(
                temperature=temperature, top_k=top_k, max_tokens=max_tokens, seed=own, **params
            )
            requests.append(self.submit(prompt, sampling, num_samples))
        try:
            while not all(request.finished for request in requests):
                self.step()
        finally:
            self._abandon(requests)
        return [
            completion for request in requests for completion in request.completions(self.special)
        ]

    def generate(
        self,
        tokens: Iterable[int],
        num_samples: int = 1,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = 42,
        **params: Any,
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Draw `num_samples` answers in lockstep: yields (token_column, token_masks), one entry for
        each sample.

        Mask 1: sampled; 0: forced by a tool. The token that ends an answer is part of it; a sample
        that is over repeats <|assistant_end|> with mask 0 until the last one is. ValueError (at
        once) for what does not fit.
        """
        sampling = SamplingParams(
            temperature, top_k, top_p, None, seed, max_tokens=max_tokens, **params
        )
        prompt = self._checked_prompt(tokens)
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: must be 1 or more")
        return self._columns(prompt, sampling, num_samples)

    def _columns(
        self, prompt: list[int], params: SamplingParams, n: int
    ) -> Iterator[tuple[list[int], list[int]]]:
        request = self.submit(prompt, params, n)
        filler = (
            self.special.assistant_end
            if self.special.assistant_end is not None
            else (self.special.bos or 0)
        )
        rows: list[deque[tuple[int, int]]] = [deque() for _ in range(n)]
        over = [False] * n
        for event in self.stream(request):
            if event.token is not None:
                rows[event.sample].append((event.token, event.mask))
            over[event.sample] = over[event.sample] or event.finish_reason is not None
            while any(rows) and all(row or done for row, done in zip(rows, over, strict=True)):
                column = [row.popleft() if row else (filler, 0) for row in rows]
                yield [token for token, _ in column], [mask for _, mask in column]

    def generate_batch(
        self, tokens: Iterable[int], num_samples: int = 1, **params: Any
    ) -> tuple[list[list[int]], list[list[int]]]:
        """(results, masks) of `num_samples` answers: the prompt and what followed, without the
        token that ended it.

        Parameters as for `generate`. The prompt's mask is 0.
        """
        params.setdefault("seed", 42)
        request = self.submit(tokens, SamplingParams(**params), num_samples)
        for _ in self.stream(request):
            pass
        done = request.completions(self.special)
        return [request.prompt + c.ids for c in done], [
            [0] * len(request.prompt) + c.mask for c in done
        ]


def _delivered(events: list[Event]) -> list[Event]:
    for event in events:
        event.request.events.append(event)
    return events
