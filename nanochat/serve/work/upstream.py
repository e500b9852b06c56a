"""Models behind another OpenAI-compatible server (vLLM, llama.cpp's, another of ours): the same
queue, limits and records stand before them.

Needs httpx, imported late: who serves from this machine alone does without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanochat.serve.work.served_model import ModelCard
from nanochat.tokenizer import Tokenizer

if TYPE_CHECKING:
    import httpx

CONNECT_TIME_S = 10.0
SILENCE_S = 120.0  # longest pause of an upstream that is at work


@dataclass(kw_only=True)
class Upstream:
    """Another server: its address up to /v1, and the key it wants."""

    url: str
    key: str | None = None
    _client: httpx.AsyncClient | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}

    def client(self) -> httpx.AsyncClient:
        """The connections, for the event loop that asks first."""
        if self._client is None:
            self._client = imported_httpx().AsyncClient(
                headers=self.headers,
                timeout=imported_httpx().Timeout(SILENCE_S, connect=CONNECT_TIME_S),
                limits=imported_httpx().Limits(max_connections=None),
                trust_env=False,
            )
        return self._client

    def model_cards(self) -> list[ModelCard]:
        """The models it has. ValueError when it cannot be asked."""
        httpx = imported_httpx()
        try:
            answer = httpx.get(
                f"{self.url}/models", headers=self.headers, timeout=CONNECT_TIME_S, trust_env=False
            )
            answer.raise_for_status()
            cards = [remote_card(entry) for entry in answer.json()["data"]]
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            fix = "check --upstream-key-file" if status in (401, 403) else "is that its /v1?"
            raise ValueError(
                f"--upstream={self.url}: {self.url}/models answers {status}; {fix}"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(
                f"--upstream={self.url}: cannot be reached ({error}); start it first"
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"--upstream={self.url}: {self.url}/models is no list of models; name the address "
                "of an OpenAI-compatible server with its /v1"
            ) from None
        if not cards:
            raise ValueError(f"--upstream={self.url}: serves no model; load one there")
        return cards


def imported_httpx() -> Any:
    """httpx. ValueError that names the extra when it is not installed."""
    try:
        import httpx
    except ModuleNotFoundError:
        raise ValueError("--upstream: needs httpx; pip install 'nanochat[serve]'") from None
    return httpx


def remote_card(entry: dict[str, Any]) -> ModelCard:
    """From an entry of /v1/models; vLLM, llama.cpp and this server each name the context in their
    own way.
    """
    stand_in = Tokenizer.byte_level()
    about = entry.get("meta") or {}
    context = entry.get("context_length") or entry.get("max_model_len") or about.get("n_ctx_train")
    return ModelCard(
        name=str(entry["id"]),
        tokenizer=stand_in,
        context=int(context or 0),
        vocab_size=stand_in.get_vocab_size(),
        created=int(entry.get("created") or 0),
        step=entry.get("step"),
        remote=True,
    )
