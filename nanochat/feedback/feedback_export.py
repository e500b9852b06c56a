"""`nanochat feedback export`: accepted feedback as files to train on.

`conversations.jsonl` is what `chat_sft --data` takes as it is: of each conversation only the last
answer is learned, as it was corrected or, where nobody corrected it, as it was praised.
`preferences.jsonl` has pairs for methods that learn from them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanochat.feedback.redaction import Redactor
from nanochat.runtime.base_dir import base_dir
from nanochat.runtime.files import atomic_write
from nanochat.store import feedback_rows as feedback
from nanochat.store.chat_tables import FeedbackRow
from nanochat.store.database import Database, default_url
from nanochat.store.upgrading import upgrade

DAY_S = 86_400


@dataclass
class FeedbackExportConfig:
    """Write accepted feedback as conversations for chat_sft --data and as preference pairs."""

    out: Path | None = None
    """Folder for the files (default: a new one under feedback/ in the base directory)."""
    database: str | None = None
    """Address of the database (default: SQLite in the base directory)."""
    retain_days: int | None = None
    """Delete feedback that is older, and exports in the base directory that are."""
    redact: bool = True
    """Replace e-mail addresses, keys, and numbers that look like cards or phones."""

    def problems(self) -> list[str]:
        if self.retain_days is not None and self.retain_days < 1:
            return [f"--retain-days={self.retain_days}: must be 1 or more"]
        return []


@dataclass(kw_only=True)
class FeedbackExport:
    """What was written. `left_out`: reason -> how many accepted ones."""

    folder: Path
    conversations: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    corrected: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    expired: int = 0

    @property
    def conversations_file(self) -> Path:
        return self.folder / "conversations.jsonl"

    def lines(self) -> list[str]:
        """For people."""
        praised = len(self.conversations) - self.corrected
        lines = [
            f"{self.conversations_file}: {len(self.conversations)} conversations "
            f"({self.corrected} corrected, {praised} praised)",
            f"{self.folder / 'preferences.jsonl'}: {len(self.pairs)} pairs",
        ]
        lines += [f"left out: {count} {reason}" for reason, count in self.left_out.items()]
        if self.redacted:
            found = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.redacted.items()))
            lines.append(f"redacted: {found}")
        if self.expired:
            lines.append(f"deleted: {self.expired} older than --retain-days")
        return lines


def export(config: FeedbackExportConfig) -> None:
    """`nanochat feedback export`. ValueError when there is nothing to write."""
    print("\n".join(write_export(config).lines()))


def write_export(config: FeedbackExportConfig) -> FeedbackExport:
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    made = FeedbackExport(folder=config.out or exports() / stamp)
    database = Database(config.database or default_url())
    try:
        upgrade(database)
        if config.retain_days is not None:
            made.expired = expire(database, config.retain_days)
        rows = database.reading(feedback.accepted)
    finally:
        database.close()
    gather(made, rows, config.redact)
    if not made.conversations and not made.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items())
        raise ValueError(
            "feedback: nothing accepted that may be trained on"
            + (f" ({reasons})" if reasons else "")
            + "; review it at /admin/feedback"
        )
    made.folder.mkdir(parents=True, exist_ok=True)
    made.folder.chmod(0o700)
    atomic_write(made.conversations_file, "".join(map(line, made.conversations)))
    atomic_write(made.folder / "preferences.jsonl", "".join(map(line, made.pairs)))
    return made


def exports() -> Path:
    return base_dir() / "feedback"


def expire(database: Database, days: int) -> int:
    """Delete feedback, and exports in their usual place, older than so many days."""
    before = time.time() - days * DAY_S
    for folder in exports().glob("*"):
        if folder.is_dir() and folder.stat().st_mtime < before:
            shutil.rmtree(folder)
    with database.write() as session:
        return feedback.expire(session, before)


def gather(made: FeedbackExport, rows: Sequence[tuple[FeedbackRow, bool]], redact: bool) -> None:
    """Corrected answers first, oldest first within each kind."""
    redactor = Redactor()
    clean = redactor.redact if redact else str
    praised = []
    for row, consent in rows:
        if not consent:
            made.left_out["from users who have not agreed to training"] += 1
            continue
        prompt = [
            {"role": message["role"], "content": cleaned(message["content"], clean)}
            for message in row.prompt
        ]
        corrected = clean(row.corrected).strip() if row.corrected else ""
        answer = clean(row.answer)
        if corrected:
            made.conversations.append(conversation(prompt, corrected))
            made.corrected += 1
            if answer.strip() and answer.strip() != corrected:
                made.pairs.append(pair(prompt, corrected, answer))
        elif row.vote > 0 and answer.strip():
            praised.append(conversation(prompt, answer))
        else:
            made.left_out["that say an answer is wrong and not what is right"] += 1
    made.conversations += praised
    made.redacted = redactor.counts


def cleaned(content: Any, clean: Any) -> Any:
    """A message's text, or its parts, redacted."""
    if isinstance(content, str):
        return clean(content)
    return [{**part, "text": clean(part["text"])} for part in content]


def conversation(prompt: list[dict[str, Any]], answer: str) -> dict[str, Any]:
    """Only the last answer is learned: nobody has judged the others."""
    before = [
        {**message, "train": False} if message["role"] == "assistant" else message
        for message in prompt
    ]
    return {"messages": [*before, {"role": "assistant", "content": answer}]}


def pair(prompt: list[dict[str, Any]], chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
