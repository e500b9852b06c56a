"""How long the page waits for its list and for a long conversation: `python -m bench.chats`.

Fills a new database with conversations of two messages each and one very long one, then asks the
real application for what the page asks, and prints the median and the slowest of the times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from nanochat.serve.http.chat_view import list_entry, whole_conversation
from nanochat.store import chats, users
from nanochat.store.chat_tables import ConversationRow, MessageRow
from nanochat.store.database import Database
from nanochat.store.messages import MessageTree, newest
from nanochat.store.table_base import new_id
from nanochat.store.upgrading import upgrade

BATCH = 5000
LIMIT_MS = 200.0


def fill(session: Session, user_id: int, conversations: int, long: int) -> ConversationRow:
    """`conversations` of two messages, and one of `long` messages -> that one."""
    for rows in batches(conversation_rows(user_id, conversations)):
        session.execute(insert(ConversationRow), rows)
    for rows in batches(message_rows(conversations)):
        session.execute(insert(MessageRow), rows)
    whole = chats.add(session, user_id, title="The long one")
    first = conversations * 2 + 1
    rows = [
        {
            "id": first + number,
            "public_id": new_id(),
            "conversation_id": whole.id,
            "parent_id": first + number - 1 if number else None,
            "role": "assistant" if number % 2 else "user",
            "content": f"Message {number} with **some** `code`.\n\n| a |\n|---|\n| 1 |\n" * 3,
        }
        for number in range(long)
    ]
    session.execute(insert(MessageRow), rows)
    whole.active_leaf_id = first + long - 1
    return whole


def conversation_rows(user_id: int, count: int) -> Iterator[dict[str, Any]]:
    for number in range(1, count + 1):
        yield {
            "id": number,
            "public_id": new_id(),
            "user_id": user_id,
            "title": f"Conversation {number} about customers",
            "updated_at": 1e9 + number,
            "active_leaf_id": 2 * number,
        }


def message_rows(conversations: int) -> Iterator[dict[str, Any]]:
    for number in range(1, conversations + 1):
        for side in (1, 2):
            yield {
                "id": 2 * (number - 1) + side,
                "public_id": new_id(),
                "conversation_id": number,
                "parent_id": None if side == 1 else 2 * number - 1,
                "role": "user" if side == 1 else "assistant",
                "content": f"What is {number} times {side}? It is a number, as you know well. " * 3,
            }


def batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    for row in rows:
        held.append(row)
        if len(held) == BATCH:
            yield held
            held = []
    if held:
        yield held


def measure(name: str, action: Callable[[], Any], times: int = 15) -> float:
    taken_ms = []
    for _ in range(times):
        start_s = time.perf_counter()
        action()
        taken_ms.append((time.perf_counter() - start_s) * 1000)
    median = statistics.median(taken_ms)
    print(f"{name:46} {median:8.1f} {max(taken_ms):8.1f}", flush=True)
    return median


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--database", help="an empty one, as --database of chat_web takes it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(options.database or f"sqlite:///{Path(folder) / 'chats.db'}")
        upgrade(database)
        with database.write() as session:
            user_id = users.add(session, "bench").id
            whole = fill(session, user_id, options.conversations, options.messages)
        print(f"{options.conversations} conversations, one of {options.messages} messages; ms")
        print(f"{'':46} {'median':>8} {'slowest':>8}")

        def listed(**what: Any) -> list[dict[str, Any]]:
            rows = database.reading(chats.listed, user_id, **what)
            return [list_entry(row) for row in rows]

        def prompt(session: Session) -> list[MessageRow]:
            return newest(session, MessageTree(session, whole).path(), 10_000)

        middle = listed(limit=200)[-1]["id"]
        medians = [
            measure("list", listed),
            measure("list, further down", lambda: listed(after=middle)),
            measure("search: in many", lambda: listed(search="customers")),
            measure("search: in one title", lambda: listed(search="The long")),
            measure("search: in nothing", lambda: listed(search="xylophone")),
            measure(
                "open the long one", lambda: database.reading(whole_conversation, whole, user_id)
            ),
            measure("its prompt for the model", lambda: database.reading(prompt)),
        ]
        database.close()
    slow = sum(median > LIMIT_MS for median in medians)
    print("all below" if not slow else f"{slow} above", f"{LIMIT_MS:.0f} ms")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
