"""What a question in a stored conversation comes to: the messages that the model gets, with the
files that were attached, and the rows it leaves. Works on a session of the store, in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from sqlalchemy.orm import Session

from nanochat.serve.api_error import ApiError
from nanochat.serve.attached_file import Fitted, fit_files, with_file
from nanochat.serve.work.served_model import ModelCard
from nanochat.store import attachments, chats, messages
from nanochat.store.chat_tables import AttachmentRow, ConversationRow, MessageRow
from nanochat.store.messages import MessageTree
from nanochat.tokenizer.chat_prompt import answer_room

MOST_HISTORY = 2000  # messages; a request takes 2,048
SPARE_TOKENS = 16  # for what the chat format adds to a question


@dataclass(kw_only=True)
class Asked:
    """A question and where it stands. `history`: the messages before it, with their files.
    `question` is the row of one that is there already.
    """

    conversation: ConversationRow
    content: str
    parent_id: int | None
    question: MessageRow | None = None
    answered_before: bool = False
    files: list[AttachmentRow] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def fit(self, card: ModelCard, max_tokens: int) -> None:
        """Put the files before the question, as far as there is room beside it and the answer."""
        question = f"{self.conversation.system_prompt}{self.content}"
        taken = card.count_tokens(question) + answer_room(card.context, max_tokens) + SPARE_TOKENS
        room = card.context - taken if card.context else inf  # a remote model may not tell
        self.fitted = fit_files(card, [(file.name, file.text) for file in self.files], room)

    def messages(self) -> list[dict[str, Any]]:
        """Everything the model gets, oldest first."""
        said = [{"role": "user", "content": "".join(f.text for f in self.fitted) + self.content}]
        if self.conversation.system_prompt:
            said = [*self.history, *said]
            return [{"role": "system", "content": self.conversation.system_prompt}, *said]
        return [*self.history, *said]


def not_found(what: str) -> ApiError:
    return ApiError(404, f"there is no such {what}", code="not_found")


def owned(session: Session, user_id: int, public_id: str) -> ConversationRow:
    """The user's conversation. ApiError 404 for any other."""
    conversation = chats.found(session, user_id, public_id)
    if conversation is None:
        raise not_found("conversation")
    return conversation


def gather(
    session: Session,
    user_id: int,
    public_id: str,
    *,
    content: str | None,
    edits: str | None,
    answer: str | None,
    files: Sequence[str],
    most_characters: int,
) -> Asked:
    """Find what was asked. ApiError 404 for ids that are not the user's, 400 for a question that
    says nothing.
    """
    conversation = owned(session, user_id, public_id)
    tree = MessageTree(session, conversation)
    if (content is None) == (answer is None):
        raise ApiError(400, "content: give it, or the question to be answered", "content")
    if answer is not None:
        asked = existing_question(session, tree, answer)
    else:
        assert content is not None
        rows = attachments.found(session, user_id, files)
        if len(rows) < len(set(files)):
            raise not_found("attachment")
        if not content.strip() and not rows:
            raise ApiError(400, "content: the message is empty", "content")
        path = tree.path()
        if edits is not None:
            at = tree.id_of.get(edits)
            if at is None:
                raise not_found("message")
            path = tree.path_to(tree.parent[at])
        asked = Asked(
            conversation=conversation,
            content=content,
            parent_id=path[-1] if path else None,
            files=rows,
        )
    before = tree.path_to(asked.parent_id)[-MOST_HISTORY:]
    asked.history = history(session, messages.newest(session, before, most_characters))
    return asked


def existing_question(session: Session, tree: MessageTree, public_id: str) -> Asked:
    at = tree.id_of.get(public_id)
    row = None if at is None else session.get(MessageRow, at)
    if row is None or row.role != "user":
        raise not_found("question")
    return Asked(
        conversation=tree.conversation,
        content=row.content,
        parent_id=row.parent_id,
        question=row,
        answered_before=bool(tree.children.get(row.id)),
        files=attachments.of_messages(session, [row.id]).get(row.id, []),
    )


def history(session: Session, rows: Sequence[MessageRow]) -> list[dict[str, Any]]:
    """Stored messages as the model gets them: questions with their files, answers with what their
    tools said.
    """
    files = attachments.of_messages(session, [row.id for row in rows])
    said: list[dict[str, Any]] = []
    for row in rows:
        if row.role == "assistant":
            if row.content or row.parts:
                said.append({"role": "assistant", "content": row.parts or row.content})
            continue
        before = "".join(
            with_file(file.name, file.text, shown_characters(row, file))
            for file in files.get(row.id, ())
        )
        said.append({"role": row.role, "content": before + row.content})
    return said


def shown_characters(row: MessageRow, file: AttachmentRow) -> int | None:
    """How much of a file the model got with this message; None: all of it."""
    for part in row.parts or ():
        if part.get("type") == "file" and part.get("id") == file.public_id:
            return int(part["characters"])
    return None


def save_question(session: Session, user_id: int, asked: Asked) -> MessageRow:
    """Write the question down, with its files and how much of each was used. It becomes the end of
    what is shown.
    """
    conversation = session.merge(asked.conversation, load=True)
    if not conversation.title:
        named = asked.content or ", ".join(file.name for file in asked.files)
        conversation.title = chats.title_of(named)
    row = messages.add(session, conversation, asked.parent_id, "user", content=asked.content)
    parts = []
    for file, fitted in zip(asked.files, asked.fitted, strict=True):
        kept = session.merge(file)
        if kept.message_id is not None:  # of the question that this one replaces
            kept = attachments.copy(kept)
            session.add(kept)
        kept.message_id = row.id
        kept.conversation_id = conversation.id
        kept.tokens = fitted.tokens
        kept.cut_tokens = fitted.cut_tokens
        session.flush()
        if fitted.characters is not None:
            parts.append({"type": "file", "id": kept.public_id, "characters": fitted.characters})
    row.parts = parts or None
    conversation.active_leaf_id = row.id
    return row
