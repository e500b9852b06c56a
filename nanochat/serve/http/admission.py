"""From a request's body to a job: what was left out is filled in, what does not fit the model is
refused. The one place where this is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nanochat.engine import SamplingParams
from nanochat.engine.request import checked_prompt
from nanochat.serve.api_error import ApiError, too_long
from nanochat.serve.http.schema import (
    ChatRequest,
    CompletionRequest,
    OpenAIRequest,
    PageRequest,
    SamplingFields,
)
from nanochat.serve.work.job import Job
from nanochat.serve.work.remote import RemotePrompt
from nanochat.serve.work.served_model import ServedModel
from nanochat.serve.work.service import Defaults
from nanochat.tokenizer.chat_prompt import PromptTooLong, answer_room, fit_messages

DEFAULT_COMPLETION_TOKENS = 16


async def chat_job(
    model: ServedModel, body: PageRequest | ChatRequest, defaults: Defaults, client: str
) -> tuple[Job, int]:
    """(job, how many of the oldest turns were left out) for a conversation's next answer."""
    n = 1
    max_tokens = body.max_tokens
    more: dict[str, Any] = {}
    if isinstance(body, ChatRequest):
        check_stream_options(body)
        if body.top_logprobs and not body.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs=true", "top_logprobs")
        n = body.n or 1
        max_tokens = body.max_completion_tokens or max_tokens
        more = {
            "stop": body.stops(),
            "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
            "tools": body.tools_use or "run",
        }
    params = sampling(body, defaults, max_tokens or defaults.max_tokens, **more)
    if model.card.remote:
        prompt = RemotePrompt(path="chat/completions", body=remote_chat(body, params))
        return Job(client=client, prompts=[prompt], params=params, n=n), 0
    ids, dropped_turns = await fitted(model, body, params.max_tokens)
    return Job(client=client, prompts=[ids], params=params, n=n), dropped_turns


async def completion_job(
    model: ServedModel, body: CompletionRequest, defaults: Defaults, client: str
) -> Job:
    """The job of continuing text or token ids."""
    check_stream_options(body)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError(400, f"best_of={body.best_of}: not supported; leave it out", "best_of")
    if body.echo and body.logprobs is not None:
        raise ApiError(400, "echo: not supported together with logprobs; leave one out", "echo")
    params = sampling(
        body,
        defaults,
        DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens,
        stop=body.stops(),
        logprobs=body.logprobs,
        tools=body.tools_use or "run",
    )
    prompts: Sequence[list[int] | RemotePrompt]
    if model.card.remote:
        prompts = remote_prompts(body, params)
    else:
        prompts = await asyncio.to_thread(token_prompts, model, body.prompt)
    return Job(client=client, prompts=prompts, params=params, n=body.n or 1)


def remote_chat(body: PageRequest | ChatRequest, params: SamplingParams) -> dict[str, Any]:
    """The conversation as any OpenAI-compatible server takes it: texts, without the calculator's
    pieces. What does not fit is for that server to refuse.
    """
    messages = []
    for message in body.messages:
        said = text_of(message.plain()["content"], "text")
        check_characters(said, "messages")
        role = "system" if message.role == "developer" else message.role
        messages.append({"role": role, "content": said})
    return {"messages": messages, **remote_sampling(body, params)}


def remote_prompts(body: CompletionRequest, params: SamplingParams) -> list[RemotePrompt]:
    if body.echo:
        raise ApiError(400, "echo: not supported for this model; leave it out", "echo")
    prompt: Any = body.prompt
    many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    for one in many:
        check_characters(one if isinstance(one, str) else "", "prompt")
    more = remote_sampling(body, params)
    return [RemotePrompt(path="completions", body={"prompt": one, **more}) for one in many]


def remote_sampling(body: SamplingFields, params: SamplingParams) -> dict[str, Any]:
    """What every server knows, filled in as for our own models; what only some do, where it was
    asked for.
    """
    if params.logprobs is not None:
        raise ApiError(400, "logprobs: not supported for this model; leave it out", "logprobs")
    always = {"temperature": params.temperature, "max_tokens": params.max_tokens}
    optional = {
        "top_k": body.top_k,
        "top_p": params.top_p,
        "min_p": body.min_p,
        "seed": params.seed,
        "stop": list(params.stop) or None,
        "tools_use": getattr(body, "tools_use", None),
    }
    return {**always, **{name: value for name, value in optional.items() if value is not None}}


def sampling(
    body: SamplingFields, defaults: Defaults, max_tokens: int, **more: Any
) -> SamplingParams:
    """Sampling parameters of a request. The body has been checked: they fit."""
    temperature = defaults.temperature if body.temperature is None else body.temperature
    return SamplingParams(
        temperature=0.0 if body.top_p == 0 else temperature,
        top_k=defaults.top_k if body.top_k is None else body.top_k,
        top_p=body.top_p or None,
        min_p=body.min_p,
        seed=None if body.seed is None else body.seed % 2**63,
        max_tokens=max_tokens,
        **more,
    )


def check_stream_options(body: OpenAIRequest) -> None:
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options: only together with stream=true", "stream_options")


async def fitted(
    model: ServedModel, body: PageRequest | ChatRequest, max_tokens: int | None
) -> tuple[list[int], int]:
    """(ids, how many of the oldest turns had to go). ApiError 400 when the last message alone is
    too long.
    """
    card = model.card
    messages = [message.plain() for message in body.messages]
    texts = [text_of(message["content"]) for message in messages]
    check_characters("".join(texts), "messages")
    check_size(model, texts[-1], "messages")
    room = card.context - answer_room(card.context, max_tokens)
    try:  # in a thread: a long text takes a while
        prompt = await asyncio.to_thread(fit_messages, card.tokenizer, messages, room)
    except PromptTooLong as error:
        raise too_long(str(error), "messages") from None
    return prompt.ids, prompt.dropped_turns


def token_prompts(model: ServedModel, prompt: Any) -> list[list[int]]:
    """One or several prompts, as text or ids, as ids. ApiError 400 for one that the model cannot
    continue.
    """
    many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    return [prompt_ids(model, one) for one in many]


def prompt_ids(model: ServedModel, prompt: str | list[int]) -> list[int]:
    card = model.card
    if isinstance(prompt, str):
        check_characters(prompt, "prompt")
        check_size(model, prompt, "prompt")
        bos = card.tokenizer.get_bos_token_id()
        ids: list[int] = card.tokenizer.encode(prompt, prepend=bos)
    else:
        ids = prompt
    try:
        return checked_prompt(ids, card.context, card.vocab_size)
    except PromptTooLong as error:
        raise too_long(str(error).replace("tokens", "prompt", 1), "prompt") from None
    except ValueError as error:
        raise ApiError(400, str(error).replace("tokens", "prompt", 1), "prompt") from None


def text_of(content: str | list[dict[str, str]], kind: str | None = None) -> str:
    """A message's pieces as one text: those of a kind, or all."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if kind in (None, part["type"]))


def check_characters(text: str, param: str) -> None:
    """ApiError 400 for half a surrogate pair: JSON can spell it, no encoding can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        reason = f"{param}: the text holds half of a surrogate pair"
        raise ApiError(400, reason, param, "invalid_value") from None


def check_size(model: ServedModel, text: str, param: str) -> None:
    """ApiError 400 for a text that is too long however it is encoded."""
    if len(text) > model.card.most_bytes:
        found = f"a text of {len(text)} characters, the context holds {model.card.context} tokens"
        raise too_long(f"{param}: {found}; shorten it", param)
