"""The engine: many requests over one model, one step at a time.

A step is: plan rows (scheduler), run them through the model (runner), draw tokens (sampler), tell
the requests. Whoever serves requests calls `submit` and `step`; `stream`, `complete`, `generate`
and `generate_batch` step for themselves.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Any

from nanochat.engine.event import Event
from nanochat.engine.finite import NonFiniteLogits
from nanochat.engine.pages import PagePool
from nanochat.engine.request import Completion, Request, checked_prompt
from nanochat.engine.runner import Runner, Static
from nanochat.engine.sample import Sample
from nanochat.engine.scheduler import Scheduler
from nanochat.engine.sequence import FinishReason, SamplingParams, Sequence, sample_seed
from nanochat.engine.stats import EngineStats
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.special_tokens import SpecialIds

DEFAULT_CACHE_BYTES = 1 << 30


class Engine:
    """Continuous batching over one model.

    `max_running` sequences share a step of at most `max_step_tokens` tokens. The cache holds
    `cache_tokens` tokens in pages of `page_tokens`; unless told otherwise a full context for each
    of them, as far as 1 GiB goes, but always two. `reuse_prefixes` keeps up to half of it after its
    sequences end, for prompts that begin alike. `native` and `static`: see Runner.

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
        self.model = model
        self.tokenizer = tokenizer
        self.special = SpecialIds.of(tokenizer.special_tokens)
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
        self._cancelled: deque[tuple[int, FinishReason, str]] = deque()
        self._requests: dict[int, Request] = {}
        self._owner: dict[Sequence, tuple[Request, Sample]] = {}
        self._undelivered: list[Event] = []
        self._lock = threading.Lock()
        self._steps = 0
        self._prefilled = 0
        self._generated = 0

    def _default_cache_tokens(self, max_running: int) -> int:
        config = self.model.config
        token_bytes = 2 * config.n_layer * config.kv_dim * self.runner.dtype.itemsize
        return max(
            2 * self.context, min(max_running * self.context, DEFAULT_CACHE_BYTES // token_bytes)
        )

    # --- the core: submit, cancel, step

    def submit(
        self,
        tokens: Iterable[int],
        params: SamplingParams | None = None,
        n: int = 1,
        *,
        request_id: int | None = None,
    ) -> Request:
        """Queue a prompt for `n` samples. Its events carry `request_id`, by default a number the
        engine chooses. ValueError when the prompt is empty, too long, or not made of this model's
        ids.
        """
        request = self._checked(tokens, params, n, request_id)
        self._enqueue(request)
        return request

    def _checked(
        self,
        tokens: Iterable[int],
        params: SamplingParams | None,
        n: int,
        request_id: int | None = None,
    ) -> Request:
        """A request that can be queued."""
        prompt = checked_prompt(tokens, self.context, self.model.config.vocab_size)
        if n < 1:
            raise ValueError(f"n={n}: must be 1 or more")
        number = request_id
        if number is None:
            number = next(number for number in self._ids if number not in self._requests)
        params = params or SamplingParams()
        samples = [
            Sample(
                Sequence(
                    index, list(prompt), replace(params, seed=sample_seed(params.seed, index))
                ),
                request=number,
                tokenizer=self.tokenizer,
                special=self.special,
                context=self.context,
            )
            for index in range(n)
        ]
        return Request(id=number, prompt=prompt, params=params, samples=samples)

    def _enqueue(self, request: Request) -> None:
        assert request.id not in self._requests, f"request {request.id} is still running"
        self._requests[request.id] = request
        self._inbox.append(request)

    def cancel(self, request_id: int, reason: FinishReason = "cancelled", detail: str = "") -> None:
        """End a request in the next step, its samples with this `finish_reason`. Nothing happens
        to a finished one.
        """
        self._cancelled.append((request_id, reason, detail))

    @property
    def has_work(self) -> bool:
        return bool(
            self._inbox
            or self._cancelled
            or self._undelivered
            or self.scheduler.waiting
            or self.scheduler.running
        )

    def step(self) -> list[Event]:
        """One forward pass for whoever is due; the events it made, each delivered once: those of a
        `stream` or of `complete` go there instead. NonFiniteLogits when the model is of no use.
        """
        with self._lock:
            self._advance()
            return self._take_undelivered()

    def _advance(self) -> None:
        self._take_messages()
        rows = self.scheduler.plan()
        if not rows:
            return
        try:
            drawn_tokens = self.runner.draw(rows, self.pool.n_reached)
        except NonFiniteLogits:
            self.scheduler.preempt_all()
            self.pool.drop_retained()
            self.runner.cache.clear()
            raise
        self.scheduler.computed(rows)
        due = [row.sequence for row in rows if row.samples]
        self._steps += 1
        self._prefilled += sum(row.n_tokens for row in rows) - len(due)
        self._generated += len(due)
        for sequence, drawn in zip(due, drawn_tokens, strict=True):
            request, sample = self._owner[sequence]
            for event in sample.advance(drawn):
                self._deliver(request, event)
            if sequence.finished:
                self._end(request, sequence)

    def _take_messages(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            if not self._owner and self.runner.refresh_if_changed():
                self.pool.drop_retained()
            for sample in request.samples:
                self._owner[sample.sequence] = request, sample
                self.scheduler.add(sample.sequence)
            if request.params.max_tokens == 0:
                self._close(request, "length", "max_tokens=0 reached")
        while self._cancelled:
            request_id, reason, detail = self._cancelled.popleft()
            if request_id in self._requests:
                self._close(self._requests[request_id], reason, detail)

    def _close(self, request: Request, reason: FinishReason, detail: str) -> None:
        """End the samples that are still running."""
        for sample in request.samples:
            if not sample.sequence.finished:
                self._deliver(request, sample.close(reason, detail))
                self._end(request, sample.sequence)

    def _end(self, request: Request, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        del self._owner[sequence]
        if request.finished:
            del self._requests[request.id]

    def _deliver(self, request: Request, event: Event) -> None:
        if request.deliver is None:
            self._undelivered.append(event)
        else:
            request.deliver(event)

    def _take_undelivered(self) -> list[Event]:
        events = self._undelivered
        self._undelivered = []
        return events

    def fail_all(self, detail: str) -> list[Event]:
        """End everything with finish_reason "error" after `step` raised; the engine can be used
        again afterwards.
        """
        with self._lock:
            self._take_messages()
            for request in list(self._requests.values()):
                self._close(request, "error", detail)
            self.pool.drop_retained()
            return self._take_undelivered()

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting) + len(self._inbox),
            pages_used=self.pool.n_used,
            pages_retained=self.pool.n_retained,
            pages_total=self.pool.max_pages,
            cache_bytes=self.runner.cache.bytes_held(),
            steps=self._steps,
            prefill_tokens=self._prefilled,
            reused_tokens=self.scheduler.n_reused_tokens,
            generated_tokens=self._generated,
            preemptions=self.scheduler.n_preempted,
        )

    def trim(self) -> None:
        """Forget retained prefixes and give their memory back."""
        with self._lock:
            self.pool.drop_retained()
            self.runner.trim(self.pool.n_reached)

    # --- whole answers

    def stream(
        self, tokens: Iterable[int], params: SamplingParams | None = None, n: int = 1
    ) -> Generator[Event, None, None]:
        """The events of `n` answers as they come. Stopping early cancels them. ValueError (at
        once) as for `submit`.
        """
        return self._events(self._checked(tokens, params, n))

    def _events(self, request: Request) -> Generator[Event, None, None]:
        mailbox: deque[Event] = deque()
        request.deliver = mailbox.append
        self._enqueue(request)
        left = len(request.samples)
        try:
            while left:
                with self._lock:
                    if not mailbox:  # another thread's step may have filled it
                        self._advance()
                while mailbox:
                    event = mailbox.popleft()
                    left -= event.finish_reason is not None
                    yield event
        finally:
            self._abandon([request])

    def _abandon(self, requests: list[Request]) -> None:
        """Take out what is unfinished, at once and without another forward pass (the last one may
        have raised).
        """
        unfinished = [request for request in requests if not request.finished]
        for request in unfinished:
            self.cancel(request.id)
        if unfinished:
            with self._lock:
                self._take_messages()

    def complete(
        self, requests: Iterable[Request], on_done: Callable[[int], Any] | None = None
    ) -> list[list[Completion]]:
        """Step until these submitted requests are finished -> the completions of each, in order.
        `on_done` is told how many requests were finished, whenever some were.
        """
        taken: list[Request] = []
        try:
            for request in requests:
                request.deliver = _nowhere
                taken.append(request)
            running = taken
            while running:
                with self._lock:
                    self._advance()
                still = [request for request in running if not request.finished]
                if on_done is not None and len(still) < len(running):
                    on_done(len(running) - len(still))
                running = still
        finally:
            self._abandon(taken)
        return [request.completions() for request in taken]

    def generate(
        self,
        tokens: Iterable[int],
        num_samples: int = 1,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        *,
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
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            max_tokens=max_tokens,
            **params,
        )
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: must be 1 or more")
        return self._columns(self.stream(tokens, sampling, num_samples), num_samples)

    def _columns(
        self, events: Generator[Event, None, None], n: int
    ) -> Iterator[tuple[list[int], list[int]]]:
        filler = self.special.assistant_end
        if filler is None:
            filler = self.special.bos or 0
        rows: list[deque[tuple[int, int]]] = [deque() for _ in range(n)]
        over = [False] * n
        for event in events:
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
        [done] = self.complete([request])
        results = [request.prompt + completion.ids for completion in done]
        masks = [[0] * len(request.prompt) + completion.mask for completion in done]
        return results, masks


def _nowhere(event: Event) -> None:
    """Nobody reads the events of `complete`."""
