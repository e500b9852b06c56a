"""Who the model says it is: training rows, and the exam on wordings it was never trained on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from nanochat.checkpoint_manager import read_meta
from nanochat.dataset.identity import Split, exam_questions, identity_conversations
from nanochat.dataset.persona import Persona, as_persona
from nanochat.runtime.base_dir import base_dir
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalogue import TASKS, world_name
from nanochat.tasks.conversation_file import ConversationFile

OWN_FILE = "identity_conversations.jsonl"
PERSONA = "persona "  # begins the name of a source that is made from one


class IdentityTask(Task):
    """Conversations about a persona: a YAML file or a Persona. None means the base directory's own
    file of identity conversations (downloaded, or made by dev/gen_synthetic_data.py) where there is
    one, else the package's persona.

    split: "train" has conversations of one to three exchanges, "exam" single questions with
    held-out wordings; `size` of them (default: the catalogue's), an own file all it has. Exam rows
    carry `accept`: what an answer must contain. `source`: where the rows come from, in words.
    ValueError for bad values or files.
    """

    def __init__(
        self,
        persona: Persona | Path | str | None = None,
        split: Split = "train",
        size: int | None = None,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "exam"):
            raise ValueError(f"split: {split!r} must be 'train' or 'exam'")
        super().__init__(TASKS["identity" if split == "train" else world_name("identity")])
        self.split = split
        own = own_identity_file()
        if persona is None and split == "train" and own is not None:
            self.source = str(own)
            self.rows = ConversationFile(own).rows
            return
        self.persona = as_persona(persona)
        self.source = PERSONA + self.persona.name
        if split == "train":
            count = TASKS["identity"].train_rows if size is None else size
            self.rows = identity_conversations(self.persona, count, seed)
        else:
            count = TASKS[self.name].test_rows if size is None else size
            self.rows = self._exam(count, seed)

    def _exam(self, count: int, seed: int) -> list[Conversation]:
        rows = []
        for question, intent in exam_questions(self.persona, count, seed):
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": intent.answers[0]},
            ]
            rows.append(
                {"messages": messages, "accept": list(intent.accept), "intent": intent.name}
            )
        return rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Conversation:
        return self.rows[self.index(index)]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether everything in `accept` is in the answer; case and blanks do not matter."""
        if "accept" not in conversation:
            raise ValueError(
                "accept: the conversation is not a row of the identity exam, so there is nothing "
                "to check"
            )
        answer = " ".join(completion.casefold().split())
        return all(" ".join(words.casefold().split()) in answer for words in conversation["accept"])


def own_identity_file() -> Path | None:
    """The base directory's own file of identity conversations, if there is one."""
    path = base_dir() / OWN_FILE
    return path if path.is_file() else None


def identity_exam(meta: dict[str, Any]) -> IdentityTask:
    """The exam about who a checkpoint was taught to be, in its own stage or in one before. `meta`:
    as in its meta file.

    ValueError where nothing can be asked: an own file says nothing about right answers.
    """
    current: dict[str, Any] | None = meta
    while current is not None:
        sources = [line["source"] for line in current.get("mixture") or ()]
        if any(source.startswith(PERSONA) for source in sources):
            return IdentityTask(current["user_config"].get("persona"), "exam")
        if taught := [source for source in sources if Path(source).name == OWN_FILE]:
            raise ValueError(
                f"who it is was taught by {taught[0]}, and only a --persona says which answers "
                "are right"
            )
        parent = current.get("parent")
        current = None
        if parent is not None:
            with contextlib.suppress(ValueError):  # gone since, or on another machine
                current = read_meta(Path(parent["directory"]), parent["step"])
    return IdentityTask(None, "exam")
