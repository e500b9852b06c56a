"""The bodies of the page's requests about conversations, and of the files they are exported to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from nanochat.serve.http.callers import Caller, current_user
from nanochat.serve.http.schema import Items, SamplingFields, Strict

Who = Annotated[Caller, Depends(current_user)]
PublicId = Annotated[str, Field(min_length=1, max_length=64)]
Title = Annotated[str, Field(max_length=1000)]
SystemPrompt = Annotated[str, Field(max_length=100_000)]
MOST_MESSAGES = 100_000


class ChosenSettings(SamplingFields):
    """Sampling that a conversation keeps; what is left out is the server's choice."""


class ConversationBody(Strict):
    """A new conversation."""

    title: Title = ""
    model: str | None = None
    system_prompt: SystemPrompt = ""
    settings: ChosenSettings = ChosenSettings()
    folder: PublicId | None = None


class ConversationChange(Strict):
    """What is to change; folder "": in none; model "": the server's first."""

    title: Title | None = None
    model: str | None = None
    system_prompt: SystemPrompt | None = None
    settings: ChosenSettings | None = None
    folder: Annotated[str, Field(max_length=64)] | None = None


class AskBody(Strict):
    """A question (`content`, after what is shown, or in place of the question `edits`), or a
    question that is there and is to be answered, again (`answer`).
    """

    content: str | None = None
    edits: PublicId | None = None
    answer: PublicId | None = None
    attachments: Annotated[Items[PublicId], Field(max_length=20)] = []


class ActiveBody(Strict):
    """The version to be shown."""

    message: PublicId


class FolderBody(Strict):
    name: Annotated[str, Field(max_length=1000)]


class ShareBody(Strict):
    """Who may read: names of users and groups."""

    people: Annotated[Items[str], Field(max_length=100)] = []
    groups: Annotated[Items[str], Field(max_length=100)] = []


class RenderBody(Strict):
    text: str


# --- exported files: numbers come back as JSON spells them, so types are not strict here


class Exported(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ExportedFile(Exported):
    name: Annotated[str, Field(max_length=255)]
    media_type: Annotated[str, Field(max_length=127)]
    text: str
    tokens: Annotated[int, Field(ge=0, lt=2**31)] = 0
    cut_tokens: Annotated[int, Field(ge=0, lt=2**31)] = 0
    size_bytes: Annotated[int, Field(ge=0, lt=2**31)] = 0
    created_at: float


class ExportedPart(BaseModel):
    """A piece of an answer; the text of a tool's call or result, too."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    type: Annotated[str, Field(max_length=64)]
    text: str = ""


class ExportedMessage(Exported):
    parent: int | None
    position: Annotated[int, Field(ge=0, lt=2**31)] = 0
    role: Literal["user", "assistant", "system"]
    content: str
    parts: list[ExportedPart] | None = None
    status: Literal["complete", "stopped", "failed", "cut", "streaming"] = "complete"
    model: Annotated[str, Field(max_length=255)] | None = None
    checkpoint_hash: Annotated[str, Field(max_length=64)] | None = None
    settings: dict[str, Any] = {}
    prompt_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    completion_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    created_at: float
    attachments: Annotated[list[ExportedFile], Field(max_length=20)] = []


class ExportedConversation(Exported):
    title: Annotated[str, Field(max_length=255)] = ""
    model: Annotated[str, Field(max_length=255)] | None = None
    system_prompt: str = ""
    settings: dict[str, Any] = {}
    created_at: float
    updated_at: float
    folder: Annotated[str, Field(max_length=128)] | None = None
    active: int | None = None
    messages: Annotated[list[ExportedMessage], Field(max_length=MOST_MESSAGES)]


class ExportedChats(Exported):
    """The file: `nanochat_export` is the version of its form."""

    nanochat_export: Literal[1]
    conversations: Annotated[list[ExportedConversation], Field(max_length=MOST_MESSAGES)]
