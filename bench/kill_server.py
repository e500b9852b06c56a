"""Kill the server while it answers, again and again, and look for what was lost.

    python -m bench.kill_server --rounds 20
    python -m bench.kill_server --rounds 20 --database postgresql://USER@HOST/EMPTY

In each round clients ask over the API and in stored conversations, and say what they think of the
answers; then comes SIGKILL. Checked in the database: each question, feedback and end of an answer
that a client was told of is there, its row of usage too, and an answer that was on its way holds
at least what the client had seen. The next start must leave nothing marked as on its way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.serve_load import make_accounts

ROOT = Path(__file__).resolve().parents[1]
GONE = (httpx.HTTPError, json.JSONDecodeError)  # what clients see of a killed server


@dataclass
class Asked:
    """A question in a stored conversation, as its client knows it."""

    question: str
    content: str
    answer: str
    seen: str = ""
    done: bool = False
    feedback: bool = False


@dataclass
class Witness:
    """What one client was told in a round."""

    key: str
    ended: int = 0  # answers whose end it has seen
    asked: list[Asked] = field(default_factory=list)


def save_model(base: Path) -> None:
    """A small random model that writes letters, as the checkpoint sft:d2."""
    from bench.random_models import random_model, spell_letters
    from nanochat.checkpoint_manager import FOLDERS, save_checkpoint
    from nanochat.tokenizer import Tokenizer

    tokenizer = Tokenizer.byte_level()
    model = spell_letters(random_model(2, tokenizer.get_vocab_size(), "classic"))
    directory = base / FOLDERS["sft"] / "d2"
    meta = {"model_config": asdict(model.config), "tokenizer": tokenizer.identity()}
    save_checkpoint(directory, 0, model.state_dict(), None, meta)
    tokenizer.save(directory / "tokenizer")


def start(base: Path, database: str, port: int) -> subprocess.Popen[bytes]:
    """A server that takes requests."""
    words = [sys.executable, "-m", "nanochat", "chat-web", "-p", str(port), "--database", database]
    env = {**os.environ, "NANOCHAT_BASE_DIR": str(base)}
    process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2).close()
            return process
        except OSError:
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < end, "the server is not ready"
            time.sleep(0.1)


async def over_the_api(client: httpx.AsyncClient, witness: Witness) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            witness.ended += line == "data: [DONE]"


async def in_a_conversation(client: httpx.AsyncClient, witness: Witness, number: int) -> None:
    made = await client.post("/api/conversations", json={"settings": {"max_tokens": 24}})
    path = f"/api/conversations/{made.raise_for_status().json()['id']}/messages"
    content = f"question {number}"
    async with client.stream("POST", path, json={"content": content}) as answer:
        asked = None
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if asked is None:
                asked = Asked(event["question"]["id"], content, event["answer"]["id"])
                witness.asked.append(asked)
            asked.seen += event.get("token", "")
            if event.get("done"):
                asked.done = True
                witness.ended += 1
    if asked is not None and asked.done:
        vote = {"message": asked.answer, "vote": 1, "comment": content}
        asked.feedback = (await client.post("/api/feedback", json=vote)).status_code < 300


async def client(url: str, witness: Witness, number: int) -> None:
    """Ask until the server is gone."""
    headers = {"Authorization": f"Bearer {witness.key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        for turn in range(10**6):
            try:
                if (number + turn) % 2:
                    await over_the_api(http, witness)
                else:
                    await in_a_conversation(http, witness, turn)
            except GONE:
                return


async def one_round(url: str, process: subprocess.Popen[bytes], witnesses: list[Witness]) -> None:
    """Let the clients ask, then kill."""
    tasks = [
        asyncio.create_task(client(url, witness, number))
        for number, witness in enumerate(witnesses)
    ]
    await asyncio.sleep(random.uniform(4.0, 9.0))
    process.kill()
    await asyncio.gather(*tasks)
    process.wait()


def lost(database: str, witnesses: list[Witness]) -> list[str]:
    """What clients were told and is not there."""
    from nanochat.store.account_tables import UsageRow, UserRow
    from nanochat.store.chat_tables import FeedbackRow, MessageRow
    from nanochat.store.database import Database

    store, problems = Database(database), []
    with store.read() as session:
        for number, witness in enumerate(witnesses):
            complete = (
                session.query(UsageRow)
                .join(UserRow, UserRow.id == UsageRow.user_id)
                .filter(UserRow.name == f"user{number}", UsageRow.status == "complete")
                .count()
            )
            if complete < witness.ended:
                problems.append(f"user{number}: {complete} rows of usage, saw {witness.ended} ends")
            for asked in witness.asked:
                found = {
                    row.public_id: row
                    for row in session.query(MessageRow).filter(
                        MessageRow.public_id.in_([asked.question, asked.answer])
                    )
                }
                problems += missing(asked, found)
                if asked.feedback:
                    row = found.get(asked.answer)
                    kept = row and session.query(FeedbackRow).filter_by(message_id=row.id).count()
                    problems += [] if kept else [f"{asked.answer}: its feedback is gone"]
    store.close()
    return problems


def missing(asked: Asked, found: dict[str, Any]) -> list[str]:
    question, answer = found.get(asked.question), found.get(asked.answer)
    if question is None or question.content != asked.content:
        return [f"{asked.question}: the question is gone"]
    if answer is None:
        return [f"{asked.answer}: the answer is gone"] if asked.seen else []
    if asked.done and answer.content != asked.seen:
        return [f"{asked.answer}: is not what its client saw"]
    if not answer.content.startswith(asked.seen):
        return [f"{asked.answer}: {len(asked.seen)} letters seen, {len(answer.content)} kept"]
    return []


def on_their_way(database: str) -> int:
    """Rows of usage and answers that are marked as not finished."""
    from nanochat.store.account_tables import UsageRow
    from nanochat.store.chat_tables import MessageRow
    from nanochat.store.database import Database

    store = Database(database)
    with store.read() as session:
        found = session.query(UsageRow).filter_by(status="running").count()
        found += session.query(MessageRow).filter_by(status="streaming").count()
    store.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--database", help="an empty one (default: SQLite)")
    args = parser.parse_args()
    totals = {"ends": 0, "questions": 0, "cut answers": 0, "feedback": 0, "left marked": 0}
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        database = args.database or f"sqlite:///{folder}/nanochat.db"
        save_model(base)
        witnesses = [Witness(key) for key in make_accounts(database, args.clients)]
        for number in range(args.rounds):
            process = start(base, database, args.port)
            totals["left marked"] += on_their_way(database)
            asyncio.run(one_round(f"http://127.0.0.1:{args.port}", process, witnesses))
            found = lost(database, witnesses)
            problems += found
            print(f"round {number + 1}: {len(found)} lost", *found[:3], sep="\n  ", flush=True)
        asked = [one for witness in witnesses for one in witness.asked]
        totals["ends"] = sum(witness.ended for witness in witnesses)
        totals["questions"] = len(asked)
        totals["cut answers"] = sum(not one.done for one in asked)
        totals["feedback"] = sum(one.feedback for one in asked)
    print(json.dumps({"rounds": args.rounds, **totals, "lost": len(problems)}))
    return 1 if problems or totals["left marked"] else 0


if __name__ == "__main__":
    sys.exit(main())
