"""What is asked of another server's engine, and what comes back: text, without token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanochat.engine import Event
from nanochat.serve.api_error import ApiError


@dataclass(frozen=True, kw_only=True)
class RemotePrompt:
    """A request as the other server is sent it: the path below its address, and the body without
    the model, the number of samples and how they are to be delivered.
    """

    path: str
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RemoteEvent(Event):
    """Text that the other server wrote, and by how many tokens the counts rise with it: one for a
    piece of text, and in the end what is missing from the numbers it tells. `failure`: why there
    will be no answer.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    failure: ApiError | None = None
