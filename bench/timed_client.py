"""A client for measuring the server: sends a chat over loopback, reads the stream, notes when each
piece came.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

PATH = "/v1/chat/completions"


@dataclass
class TimedReply:
    """What one client saw. Times are seconds of `time.monotonic`; `piece_times_s` one for each
    piece of text.
    """

    asked_s: float
    status: int = 0
    text: str = ""
    finish_reason: str | None = None
    piece_times_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def first_token_s(self) -> float | None:
        """From asking to the first piece."""
        return self.piece_times_s[0] - self.asked_s if self.piece_times_s else None

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece and the next."""
        times = self.piece_times_s
        return [b - a for a, b in itertools.pairwise(times)]

    @property
    def tokens_a_piece(self) -> float:
        """1 where the server did not say, or wrote a piece for each token."""
        if not self.completion_tokens or not self.piece_times_s:
            return 1.0
        return self.completion_tokens / len(self.piece_times_s)


def chat_body(text: str, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A request that is answered as a stream, with the number of tokens at its end."""
    messages = [{"role": "user", "content": text}]
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    return {"messages": messages, "max_tokens": max_tokens, **stream, **more}


async def ask(
    host: str, port: int, body: dict[str, Any], key: str | None = None, leave_after: int = 0
) -> TimedReply:
    """Send `body` and read the answer; with `leave_after` hang up after so many pieces. OSError
    when nobody listens.
    """
    payload = json.dumps(body).encode()
    reply = TimedReply(time.monotonic())
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n"
            "Connection: close\r\n"
        )
        head += "Content-Type: application/json\r\n" + (
            f"Authorization: Bearer {key}\r\n" if key else ""
        )
        writer.write(head.encode() + b"\r\n" + payload)
        status_line = (await reader.readline()).split()
        reply.status = int(status_line[1]) if len(status_line) > 1 else 0
        if reply.status != 200:
            return reply
        async for line in reader:
            if line.startswith(b"data: {"):
                _take(reply, json.loads(line[6:]), time.monotonic())
                if leave_after and len(reply.piece_times_s) >= leave_after:
                    return reply
    finally:
        writer.close()
    return reply


def _take(reply: TimedReply, event: dict[str, Any], now_s: float) -> None:
    """One event of the stream."""
    if usage := event.get("usage"):
        reply.prompt_tokens, reply.completion_tokens = (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )
    for choice in event.get("choices", ()):
        if choice["delta"].get("content"):
            reply.text += choice["delta"]["content"]
            reply.piece_times_s.append(now_s)
        reply.finish_reason = choice["finish_reason"] or reply.finish_reason


def percentiles(values: list[float]) -> dict[str, float | None]:
    """p50, p90 and p99 by nearest rank; None where there is nothing."""
    ordered = sorted(values)
    at = {f"p{share}": min(len(ordered) - 1, len(ordered) * share // 100) for share in (50, 90, 99)}
    return {name: ordered[index] if ordered else None for name, index in at.items()}
