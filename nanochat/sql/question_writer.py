"""Questions to queries, written by a language model behind an endpoint; every answer is kept in a
file, so that what was paid for once is never asked again."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.dataset.chat_endpoint import (
    ChatEndpoint,
    EndpointAnswer,
    Refused,
    Unusable,
    pause_s,
)
from nanochat.runtime.progress import Progress

TRIES = 5
MOST_QUESTION_CHARS = 400
_REQUEST = (
    "Write the question of an analyst to which this {dialect} query is the answer. Say everything "
    "that decides the result (filters with their values, groups, order, limits), name no tables or "
    "columns that plain words can name, and write the question only, in one sentence.\n\n"
    "{schema}\n\n{query}"
)


@dataclass(kw_only=True)
class QuestionWriter:
    """Asks an endpoint for questions. cache: the file of answers, one a line. Prices are dollars
    for a million tokens.
    """

    endpoint: ChatEndpoint
    cache: Path
    concurrency: int = 4
    input_price: float = 0.0
    output_price: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    _known: dict[str, str] = field(default_factory=dict)

    def write(self, queries: Sequence[tuple[str, str, str]]) -> list[str]:
        """(dialect, schema, query) each -> its question, "" where none came. Raises `Refused` when
        the endpoint will not answer; what it has answered is kept.
        """
        self._read_cache()
        requests = [
            _REQUEST.format(dialect=dialect, schema=schema, query=query)
            for dialect, schema, query in queries
        ]
        keys = [self._key(request) for request in requests]
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in self._known}
        self.reused = len(set(keys)) - len(missing)
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(self.cache, "a", encoding="utf-8") as file,
            ThreadPoolExecutor(self.concurrency) as pool,
            Progress(len(missing), "questions") as progress,
        ):
            try:
                for key, answer in zip(missing, pool.map(self._one, missing.values()), strict=True):
                    self._known[key] = _tidy(answer.text)
                    self.prompt_tokens += answer.prompt_tokens
                    self.completion_tokens += answer.completion_tokens
                    file.write(json.dumps({"key": key, "question": self._known[key]}) + "\n")
                    file.flush()
                    progress.advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [self._known[key] for key in keys]

    def cost(self) -> str:
        """What this run has asked and paid, for people."""
        dollars = (
            self.prompt_tokens * self.input_price + self.completion_tokens * self.output_price
        ) / 1e6
        return (
            f"{self.prompt_tokens:,} tokens read and {self.completion_tokens:,} written by "
            f"{self.endpoint.model}, ${dollars:.2f}; {self.reused:,} answers were there already"
        )

    def _key(self, request: str) -> str:
        return hashlib.sha256(f"{self.endpoint.model}\0{request}".encode()).hexdigest()[:24]

    def _read_cache(self) -> None:
        if not self.cache.exists():
            return
        for line in self.cache.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                self._known[row["key"]] = row["question"]
            except (ValueError, KeyError, TypeError):
                continue  # a line that was cut off: it is asked for again

    def _one(self, request: str) -> EndpointAnswer:
        rng = random.Random(request)
        for attempt in range(TRIES):
            try:
                return self.endpoint.ask(request)
            except Unusable:
                continue
            except OSError as error:
                if attempt == TRIES - 1:
                    raise Refused(
                        f"{self.endpoint.base_url}: no answer after {TRIES} tries ({error}); run "
                        "it again to go on"
                    ) from None
                time.sleep(pause_s(error, attempt, rng))
        return EndpointAnswer(text="")


def _tidy(text: str) -> str:
    """The question in an answer: its first line that says something, without quotes and labels."""
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line and not line.startswith("```")), "")
    first = first.removeprefix("Question:").strip().strip('"').strip()
    return first if len(first) <= MOST_QUESTION_CHARS else ""
