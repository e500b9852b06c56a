"""The bodies of requests: which fields there are, their types, and which of OpenAI's are
understood.

Fields that this server cannot honour are accepted only with the value that asks for nothing; an
unknown field is an error, so that a misspelt one is never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nanochat.serve.errors import ApiError

MAX_MESSAGES = 2048
MAX_PROMPTS = 128

Temperature = Annotated[
    float | None, Field(ge=0, le=100, allow_inf_nan=False, description="0: the likeliest token.")
]
Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int | None, Field(ge=1, le=1_000_000)]
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=16)]
StopOne = Annotated[str, Field(min_length=1, max_length=256)]
Zero = Annotated[float | None, Field(ge=0, le=0, description="Not supported: only 0.")]


class Strict(BaseModel):
    """No field is converted from another type, none is unknown."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Part(Strict):
    """A piece of a message. python and python_output are the calculator's calls and results in an
    answer.
    """

    type: Literal["text", "python", "python_output"]
    text: str


class Message(Strict):
    """One message of a conversation; `developer` means `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None
    parts: list[Part] | None = None
    refusal: None = None
    tool_calls: Annotated[list[Any] | None, Field(max_length=0)] = None
    function_call: None = None
    audio: None = None
    annotations: Annotated[list[Any] | None, Field(max_length=0)] = None

    def plain(self) -> dict[str, Any]:
        """As the tokenizer renders it: an assistant's parts stay parts, other parts become one
        text.
        """
        role = "system" if self.role == "developer" else self.role
        content = self.parts if self.role == "assistant" and self.parts else self.content
        if isinstance(content, str):
            return {"role": role, "content": content}
        if role == "assistant":
            return {"role": role, "content": [part.model_dump() for part in content]}
        if any(part.type != "text" for part in content):
            raise ApiError(400, f"messages: a {role} message holds text parts only", "messages")
        return {"role": role, "content": "\n".join(part.text for part in content)}


class StreamOptions(Strict):
    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class TextFormat(Strict):
    type: Literal["text"]


class Sampling(Strict):
    """How answers are drawn; what is left out is the server's choice."""

    temperature: Temperature = None
    top_k: Annotated[int | None, Field(ge=0, le=1_000_000, description="0: all tokens.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    min_p: Share = None
    max_tokens: Count = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None


class PageRequest(Sampling):
    """`POST /chat/completions`: a conversation that ends with the user's message."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None


class OpenAIRequest(Sampling):
    """What both OpenAI endpoints take."""

    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    stop: StopOne | Stop | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools_use: Annotated[
        Literal["run", "off", "return"] | None,
        Field(
            description="The calculator: run calls, treat them as text, or end the answer with "
            "finish_reason tool."
        ),
    ] = None
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: Annotated[dict[str, float] | None, Field(max_length=0)] = None
    user: str | None = None

    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(OpenAIRequest):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: TextFormat | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    tools: Annotated[list[Any] | None, Field(max_length=0)] = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None


class CompletionRequest(OpenAIRequest):
    """`POST /v1/completions`: text, or token ids, to be continued. Text gets the beginning-of-text
    token in front.
    """

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: Annotated[int | None, Field(ge=0, le=1_000_000)] = 16
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    echo: bool | None = False
    best_of: Annotated[int | None, Field(ge=1, le=128)] = None
    suffix: Literal[""] | None = None


Body = TypeVar("Body", bound=BaseModel)


def validated(kind: type[Body], value: Any) -> Body:
    """`value` as a `kind`. ApiError (400) that names the field, the value and the rule."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    name = str(problem["loc"][0]) if problem["loc"] else None
    if problem["type"] == "extra_forbidden":
        raise ApiError(
            400,
            f"{field}: this server does not know the field; leave it out",
            name,
            "unknown_parameter",
        )
    if problem["type"] == "missing":
        raise ApiError(400, f"{field}: must be given", name, "missing_required_parameter")
    if not problem["loc"]:
        raise ApiError(400, "the body must be a JSON object", None)
    raise ApiError(
        400, f"{field}={shown(problem['input'])}: {problem['msg']}", name, "invalid_value"
    )


def shown(value: Any) -> str:
    """A value in an error message: short, and never a whole conversation."""
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "..."
