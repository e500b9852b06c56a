"""Messages in any order to a prompt that asks for the next answer and fits the context.

Wider than what training takes: neighbours of one side, system messages anywhere, an assistant that
speaks first or has begun the answer. All of it is rendered in the one chat format.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanochat.tokenizer.chat_format import (
    Encoder,
    Part,
    Turn,
    content_problem,
    parts_of,
    shape_problem,
    turn_pieces,
)
from nanochat.tokenizer.special_tokens import BOS

SYSTEM_ROLES = ("system", "developer")
ANSWER_SHARE = 4  # an answer is left at least this part of the context, or its max_tokens if less


def user_turns(messages: list[dict[str, Any]]) -> tuple[str, list[Turn]]:
    """(leading system text, turns) of messages in any order of system, developer, user and
    assistant. The last turn's answer is awaited (None) or begun.

    Neighbours of one side are joined by a blank line. System text in the middle is said by the
    user, in the turn it stands before or, where none follows, after. An assistant that speaks
    first answers an empty message. ValueError for another role or content.
    """
    if reason := shape_problem(messages):
        raise ValueError(f"messages: {reason}")
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role not in (*SYSTEM_ROLES, "user", "assistant"):
            raise ValueError(f"messages: message {number} has the unknown role {role!r}")
        if reason := content_problem(role, message["content"]):
            raise ValueError(f"messages: message {number}: {reason}")
    rest = list(itertools.dropwhile(lambda message: message["role"] in SYSTEM_ROLES, messages))
    system = _joined(messages[: len(messages) - len(rest)])
    turns: list[Turn] = []
    asked: str | None = None
    for answers, group in itertools.groupby(rest, key=lambda m: m["role"] == "assistant"):
        if answers:
            turns.append(Turn(user=asked or "", answer=_joined_parts(list(group))))
            asked = None
        else:
            asked = _joined(list(group))
    if asked is not None or not turns:
        turns.append(Turn(user=asked or ""))
    return system, turns


def render_prompt(tokenizer: Encoder, messages: list[dict[str, Any]]) -> list[int]:
    """Ids that ask for the next answer, whatever the context holds; see `fit_messages`."""
    return fit_messages(tokenizer, messages, sys.maxsize).ids


def _joined(messages: Sequence[dict[str, Any]]) -> str:
    return "\n\n".join(m["content"] for m in messages if m["content"])


def _joined_parts(messages: list[dict[str, Any]]) -> list[Part]:
    """The parts of neighbouring assistant messages; a blank line where text meets text."""
    parts: list[Part] = []
    for message in messages:
        more = [part for part in parts_of(message["content"]) if part[1] or part[0] != "text"]
        if parts and more and parts[-1][0] == more[0][0] == "text":
            more[0] = ("text", f"{parts.pop()[1]}\n\n{more[0][1]}")
        parts += more
    return parts


class PromptTooLong(ValueError):
    """The last message alone takes more tokens than there is room for."""


@dataclass(frozen=True, kw_only=True)
class FittedPrompt:
    """Ids that ask for the next answer, and how many of the oldest turns (question and answer) had
    to go for that.
    """

    ids: list[int]
    dropped_turns: int


def answer_room(context: int, max_tokens: int | None) -> int:
    """Tokens of the context to keep free for an answer."""
    share = max(1, context // ANSWER_SHARE)
    return share if max_tokens is None else max(1, min(share, max_tokens))


def fit_messages(
    tokenizer: Encoder, messages: list[dict[str, Any]], max_prompt_tokens: int
) -> FittedPrompt:
    """Render messages (see `user_turns`) as a prompt, leaving out the oldest whole turns until
    they fit. An assistant's message at the end is continued.

    Leading system text stays: it is said in the first turn that is left. The work is bounded by
    what fits, not by the length of the history. ValueError for malformed messages, PromptTooLong
    for a last turn that is too long by itself.
    """
    system, turns = user_turns(messages)

    def rendered(turn: Turn, before: str = "") -> list[int]:
        user = f"{before}\n\n{turn.user}" if before and turn.user else before or turn.user
        whole = Turn(user=user, answer=turn.answer or [])
        pieces = turn_pieces(tokenizer, whole, closed=turn is not turns[-1])
        return [token for ids, _ in pieces for token in ids]

    kept: list[list[int]] = []  # newest first, without the system text
    best: list[int] = []
    for turn in reversed(turns):
        first = rendered(turn, system)
        length = 1 + len(first) + sum(map(len, kept))
        if length > max_prompt_tokens:
            break
        best = first
        kept.append(rendered(turn) if system else first)
    if not kept:
        room = f"the context has room for {max_prompt_tokens}"
        raise PromptTooLong(f"messages: the last message takes {length} tokens, {room}; shorten it")
    ids = [tokenizer.encode_special(BOS), *best]
    for later in reversed(kept[:-1]):
        ids += later
    return FittedPrompt(ids=ids, dropped_turns=len(turns) - len(kept))
