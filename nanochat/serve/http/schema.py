"""The bodies of requests: which fields there are, their types, and which of OpenAI's are
understood.

What OpenAI's clients send by habit is taken: null for any option, options that ask for nothing,
fields that a message has of its own. An option that would change the answer and cannot be honoured
is refused by name, and so is one nobody knows, so that a misspelt one is never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_MESSAGES = 2048
MAX_PROMPTS = 128


T = TypeVar("T")
# a million wrong items would be a million errors, which take minutes to report
Items = Annotated[list[T], Field(fail_fast=True)]
Temperature = Annotated[
    float | None, Field(ge=0, le=100, allow_inf_nan=False, description="0: the likeliest token.")
]
Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int | None, Field(ge=1, le=1_000_000)]
StopOne = Annotated[str, Field(min_length=1, max_length=256)]
Stop = Annotated[Items[StopOne], Field(max_length=16)]


def only(*harmless: Any) -> AfterValidator:
    """A rule for an option that is not supported: it may be off (false, 0, empty, a table of
    zeros) or one of the `harmless` values, which ask for what happens anyway.
    """

    def check(value: Any) -> Any:
        off = not value or (isinstance(value, dict) and not any(value.values()))
        if off or value in harmless:
            return value
        raise ValueError("not supported by this server; leave it out")

    return AfterValidator(check)


NOT_HERE = Field(description="Not supported; taken where it asks for nothing.")
Unsupported = Annotated[Any, only(), NOT_HERE]


class Strict(BaseModel):
    """No field is converted from another type, none is unknown (the first one that is gets
    reported); null means left out.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        given = {name: value for name, value in values.items() if value is not None}
        known = {name: value for name, value in given.items() if name in fields}
        unknown = next((name for name in given if name not in known), None)
        return known if unknown is None else {**known, unknown: given[unknown]}


class TextPart(BaseModel):
    """A piece of a message. python and python_output are the calculator's calls and results in an
    answer.
    """

    model_config = ConfigDict(strict=True)

    type: Literal["text", "python", "python_output"]
    text: str


class RefusalPart(BaseModel):
    """A piece of an answer of OpenAI's models. It is text too."""

    model_config = ConfigDict(strict=True)

    type: Literal["refusal"]
    text: Annotated[str, Field(alias="refusal")]


Part = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


def supported_role(role: str) -> str:
    if role in ("tool", "function"):
        raise ValueError(f"messages of the role {role!r} are not supported by this server")
    return role


class Message(Strict):
    """One message of a conversation; `developer` means `system`. Further fields, such as clients
    keep in their history, are left alone.
    """

    model_config = ConfigDict(extra="ignore")

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool", "function"],
        AfterValidator(supported_role),
    ]
    content: str | Items[Part]
    parts: Items[Part] | None = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None
    audio: Unsupported = None

    @model_validator(mode="before")
    @classmethod
    def answers_may_be_empty(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("role") == "assistant":
            if values.get("content") is None:
                return {**values, "content": values.get("refusal") or ""}
        return values

    def plain(self) -> dict[str, Any]:
        """As the chat format takes it: an assistant's parts stay parts, others become one text."""
        content = self.parts or self.content if self.role == "assistant" else self.content
        if isinstance(content, str):
            return {"role": self.role, "content": content}
        if self.role != "assistant":
            return {"role": self.role, "content": "\n".join(part.text for part in content)}
        parts = [
            {"type": "text" if part.type == "refusal" else part.type, "text": part.text}
            for part in content
        ]
        return {"role": self.role, "content": parts}


Messages = Annotated[Items[Message], Field(min_length=1, max_length=MAX_MESSAGES)]


class StreamOptions(Strict):
    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class SamplingFields(Strict):
    """How answers are drawn; what is left out is the server's choice."""

    temperature: Temperature = None
    top_k: Annotated[int | None, Field(ge=0, le=1_000_000, description="0: all tokens.")] = None
    top_p: Annotated[Share, Field(description="0: the likeliest token.")] = None
    min_p: Share = None
    max_tokens: Count = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None


class PageRequest(SamplingFields):
    """`POST /chat/completions`: a conversation to be answered."""

    messages: Messages
    model: str | None = None


class OpenAIRequest(SamplingFields):
    """What both OpenAI endpoints take."""

    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    stop: StopOne | Stop | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools_use: Annotated[
        Literal["run", "off", "return"] | None,
        Field(
            description="The calculator: run calls, treat them as text, or end the answer after a "
            "call."
        ),
    ] = None
    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    logit_bias: Unsupported = None
    user: str | None = None

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(OpenAIRequest):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Count = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    metadata: Any = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Annotated[Any, only({"type": "text"}), NOT_HERE] = None
    service_tier: Annotated[Any, only("auto", "default"), NOT_HERE] = None
    tool_choice: Annotated[Any, only("none", "auto"), NOT_HERE] = None
    function_call: Annotated[Any, only("none", "auto"), NOT_HERE] = None
    modalities: Annotated[Any, only(["text"]), NOT_HERE] = None
    reasoning_effort: Annotated[Any, only("none"), NOT_HERE] = None
    verbosity: Annotated[Any, only("medium"), NOT_HERE] = None
    tools: Unsupported = None
    functions: Unsupported = None
    store: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    moderation: Unsupported = None
    web_search_options: Unsupported = None


class CompletionRequest(OpenAIRequest):
    """`POST /v1/completions`: text, or token ids, to be continued. Text gets the beginning-of-text
    token in front.
    """

    prompt: (
        str
        | Annotated[Items[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[Items[int], Field(min_length=1)]
        | Annotated[Items[Items[int]], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: Annotated[int | None, Field(ge=0, le=1_000_000)] = 16
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    echo: bool | None = False
    best_of: Annotated[int | None, Field(ge=1, le=128)] = None
    suffix: Unsupported = None
