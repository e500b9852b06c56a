"""Asking a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

MAX_ANSWER_BYTES = 2**20
FIRST_PAUSE_S = 0.5  # before the second try of a request; doubled from try to try


class Refused(ValueError):
    """The endpoint will not answer, however often it is asked."""


class Unusable(ValueError):
    """This answer was no good; another may be."""


class Busy(OSError):
    """The server asks for patience; wait_s: for how long."""

    def __init__(self, status: int, after: str) -> None:
        super().__init__(f"status {status}")
        self.wait_s = min(60.0, float(after)) if after.isdigit() else 0.0


@dataclass(frozen=True, kw_only=True)
class EndpointAnswer:
    """What the model wrote, and the tokens that the endpoint counts for it (0: it counts none)."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ChatEndpoint:
    """Where to ask, and how. api_key_env: the environment variable that holds the key, sent when it
    is set.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    temperature: float = 1.0

    def ask(self, text: str) -> EndpointAnswer:
        """One question, one answer. Raises `Refused`, `Unusable`, or OSError where another try may
        help.
        """
        import requests

        key = os.environ.get(self.api_key_env)
        url = self.base_url.rstrip("/") + "/chat/completions"
        response = requests.post(
            url,
            json={
                "model": self.model,
                "messages": [{"role": "user", "content": text}],
                "temperature": self.temperature,
            },
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.timeout_s,
            allow_redirects=False,
        )
        status, said = response.status_code, response.text[:200].strip()
        if status == 429 or status >= 500:
            raise Busy(status, response.headers.get("Retry-After", ""))
        if status != 200:
            hint = f"; is ${self.api_key_env} set to a valid key?" if status in (401, 403) else ""
            raise Refused(f"{url}: status {status}: {said}{hint}")
        try:
            body: Any = response.json()
            answer: Any = body["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            raise Refused(f"{url}: not an OpenAI-compatible answer: {said}") from None
        if not isinstance(answer, str) or len(answer) > MAX_ANSWER_BYTES:
            raise Unusable("the answer is no text, or too long")
        usage = body.get("usage") or {}
        return EndpointAnswer(
            text=answer,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def pause_s(error: OSError, attempt: int, rng: random.Random) -> float:
    """Seconds to wait before the next try: longer from try to try, and what the server asks for."""
    pause = min(30.0, FIRST_PAUSE_S * 2**attempt) * (0.5 + rng.random())
    return max(pause, getattr(error, "wait_s", 0.0))
