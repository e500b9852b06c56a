"""What another server's stream says, chunk by chunk, as events of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from nanochat.engine import Event
from nanochat.engine.sequence import FinishReason
from nanochat.serve.api_error import ApiError
from nanochat.serve.work.remote import RemoteEvent
from nanochat.serve.work.upstream_failure import broken
from nanochat.tokenizer.stream import Piece

MAX_LINE_BYTES = 8 << 20
PIECE_KINDS = ("text", "python", "python_output")
SAME_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


@dataclass(kw_only=True)
class UpstreamReply:
    """What has come of one request. How a sample ended is held back until the numbers of the whole
    have come, which is after it.
    """

    request: int
    n: int
    endings: dict[int, tuple[FinishReason, str]] = field(default_factory=dict)
    n_pieces: int = 0
    usage: dict[str, Any] = field(default_factory=dict)

    def take(self, data: dict[str, Any]) -> list[Event]:
        """What one chunk adds."""
        if isinstance(data.get("usage"), dict):
            self.usage = data["usage"]
        about = data.get("nanochat") or {}
        events: list[Event] = []
        try:
            for choice in data.get("choices") or ():
                sample = int(choice.get("index") or 0)
                text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                parts = [(p["type"], p["text"]) for p in about.get("parts") or ()]
                pieces = tuple(
                    Piece(kind, said)
                    for kind, said in (*parts, ("text", text))
                    if said and kind in PIECE_KINDS
                )
                if reason := choice.get("finish_reason"):
                    detail = "" if reason in SAME_REASONS else f"the upstream says: {reason}"
                    detail = str(about.get("finish_detail") or detail)
                    self.endings[sample] = (SAME_REASONS.get(reason, "stop"), detail)
                if pieces and 0 <= sample < self.n:
                    self.n_pieces += 1
                    event = RemoteEvent(request=self.request, sample=sample, pieces=pieces)
                    events.append(replace(event, completion_tokens=1))
        except (AttributeError, LookupError, TypeError, ValueError):
            raise broken("a chunk in a form of its own") from None
        return events

    def check_complete(self) -> None:
        """ApiError when the stream ended before its answers did."""
        if len(self.endings) < self.n:
            raise broken("an answer that breaks off")

    def end_all(self, reason: FinishReason, detail: str) -> None:
        self.endings = dict.fromkeys(range(self.n), (reason, detail))

    def last_events(self, failure: ApiError | None) -> list[Event]:
        """The end of every sample; the numbers come with the first."""
        events = [
            RemoteEvent(
                request=self.request,
                sample=sample,
                finish_reason=self.endings[sample][0],
                finish_detail=self.endings[sample][1],
                failure=failure,
            )
            for sample in range(self.n)
        ]
        cached = self.usage.get("prompt_tokens_details")
        events[0] = replace(
            events[0],
            reused=count_in(cached, "cached_tokens"),
            prompt_tokens=count_in(self.usage, "prompt_tokens"),
            completion_tokens=max(0, count_in(self.usage, "completion_tokens") - self.n_pieces),
        )
        return list(events)


def count_in(numbers: Any, name: str) -> int:
    """A number that another server tells; 0 where it tells none."""
    value = numbers.get(name) if isinstance(numbers, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines as they are complete. Split at line feeds only: other ends of lines may stand inside
    of JSON strings.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise broken("a line without an end")
    if rest:
        yield rest
