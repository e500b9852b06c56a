"""Who the model says it is: training rows from a persona, and the exam on wordings it was never
trained on.
"""

from __future__ import annotations

from pathlib import Path

from nanochat.dataset.identity import Split, exam_questions, identity_conversations
from nanochat.dataset.persona import Persona, as_persona
from nanochat.runtime.run_dir import base_dir
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.conversation_file import ConversationFile

OWN_FILE = "identity_conversations.jsonl"
TRAIN_ROWS = 4000
EXAM_ROWS = 240


class IdentityTask(Task):
    """Conversations about a persona: a YAML file or a Persona. None means the base directory's own
    file of identity conversations (downloaded, or made by dev/gen_synthetic_data.py) where there is
    one, else the package's persona.

    split: "train" has TRAIN_ROWS conversations of one to three exchanges, "exam" EXAM_ROWS single
    questions with held-out wordings. Exam rows carry `accept`: what an answer must contain.
    ValueError for bad values or files.
    """

    name = "identity"

    def __init__(
        self,
        persona: Persona | Path | str | None = None,
        split: Split = "train",
        size: int | None = None,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "exam"):
            raise ValueError(f"split: {split!r} must be 'train' or 'exam'")
        self.split = split
        own = base_dir() / OWN_FILE
        if persona is None and split == "train" and own.is_file():
            self.rows = ConversationFile(own).rows
            return
        self.persona = as_persona(persona)
        if split == "train":
            self.rows = identity_conversations(
                self.persona, TRAIN_ROWS if size is None else size, seed
            )
            return
        self.rows = []
        for question, intent in exam_questions(
            self.persona, EXAM_ROWS if size is None else size, seed
        ):
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": intent.answers[0]},
            ]
            self.rows.append(
                {"messages": messages, "accept": list(intent.accept), "intent": intent.name}
            )

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
