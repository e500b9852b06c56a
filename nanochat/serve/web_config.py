"""The settings of the server: what people type after `nanochat chat-web`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from nanochat.config import Short
from nanochat.engine import SamplingParams
from nanochat.model_spec import ModelSpec, parse_spec

MIN_KEY_LENGTH = 16
FIRST_ADMIN = "nanochat users add NAME --role admin"
MAKE_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(24))" > keys.txt'


@dataclass
class ChatWebConfig:
    """Serve trained models: a chat page, a documented event stream and an OpenAI-compatible API."""

    source: Annotated[Literal["sft", "mid", "base", "rl"], Short("-i")] = "sft"
    """Stage whose checkpoint answers."""
    model_tag: Annotated[str | None, Short("-g")] = None
    """Which model (default: the deepest)."""
    step: Annotated[int | None, Short("-s")] = None
    """Which checkpoint (default: the newest)."""
    model: list[str] = field(default_factory=list)
    """Several checkpoints side by side, as stage:tag or stage:tag:step, instead of -i, -g and -s.
    """
    upstream: str | None = None
    """Address of an OpenAI-compatible server, up to its /v1, whose models are served from here, as
    http://127.0.0.1:9000/v1: vLLM, llama.cpp's server, another of this. With --model: beside those.
    """
    upstream_key_file: Path | None = None
    """File with the API key that it wants."""
    temperature: Annotated[float, Short("-t")] = 0.8
    """For requests that name none. 0 always takes the likeliest token."""
    top_k: Annotated[int | None, Short("-k")] = 50
    """For requests that name none: draw from the k likeliest tokens only (0: from all)."""
    max_tokens: Annotated[int, Short("-m")] = 512
    """Longest chat answer, in tokens, for requests that name none."""
    num_gpus: Annotated[int, Short("-n")] = 1
    """Worker processes for each model, one a device."""
    port: Annotated[int, Short("-p")] = 8000
    """0 picks a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. Any but this machine's own needs accounts or --api-key-file."""
    database: str | None = None
    """Where accounts, conversations and usage are kept: sqlite:///PATH or
    postgresql://USER:PASSWORD@HOST/NAME (default: $NANOCHAT_DATABASE, else nanochat.db in the base
    directory). off: nothing is kept, and there are no accounts.
    """
    api_key_file: Path | None = None
    """File of API keys, one a line; requests must then carry one."""
    root_path: str = ""
    """Prefix under which a proxy serves this, and which it takes away, as /chat."""
    public_url: str | None = None
    """Address that people type, as https://chat.example.org, where a proxy is in front."""
    oidc_issuer: str | None = None
    """OpenID Connect provider that people may sign in with, by the address it calls itself."""
    oidc_client_id: str | None = None
    """What the provider calls this server."""
    oidc_client_secret_file: Path | None = None
    """File with the secret that the provider gave."""
    oidc_domain: list[str] = field(default_factory=list)
    """Whose e-mail addresses may sign in, as example.org; "*": everybody whom the provider knows.
    """
    allow_origin: list[str] = field(default_factory=list)
    """Web pages that may use the API from a browser, as https://chat.example.org; those of this
    machine always may.
    """
    log_json: bool = False
    """Log to standard error, each request and each event as a line of JSON. What was asked and
    answered is never in it, nor are keys.
    """
    device_type: str | None = None
    """cuda, cpu or mps (default: the best there is)."""
    int8: bool = False
    """Weights as 8-bit whole numbers: half the memory, up to twice the decoding speed."""
    max_running: int = 32
    """Answers written at the same time by one worker."""
    max_queue: int = 256
    """Requests that may wait, for each model; more are told to come back (429)."""
    time_limit_s: float = 600.0
    """Longest time a request may take, its waiting included."""
    drain_s: float = 30.0
    """Time that running answers get to finish after SIGTERM or Ctrl+C."""

    def problems(self) -> list[str]:
        problems = []
        if self.device_type not in (None, "", "cuda", "cpu", "mps"):
            problems.append(f"--device-type={self.device_type}: must be cuda, cpu or mps")
        if not 0 <= self.port <= 65535:
            problems.append(f"--port={self.port}: must be from 0 to 65535")
        for name in ("max_tokens", "num_gpus", "max_running", "max_queue"):
            if (value := getattr(self, name)) < 1:
                problems.append(f"--{name.replace('_', '-')}={value}: must be 1 or more")
        for name in ("time_limit_s", "drain_s"):
            if not 0 < (value := getattr(self, name)) < float("inf"):
                problems.append(f"--{name.replace('_', '-')}={value}: must be seconds above 0")
        try:
            SamplingParams(temperature=self.temperature, top_k=self.top_k)
        except ValueError as error:
            problems += [f"--{reason.replace('_', '-', 1)}" for reason in str(error).split("; ")]
        return [
            *problems,
            *self._model_problems(),
            *self._upstream_problems(),
            *self._address_problems(),
            *self._origin_problems(),
            *self._oidc_problems(),
        ]

    def _model_problems(self) -> list[str]:
        problems = []
        if self.model and (self.model_tag is not None or self.step is not None):
            problems.append(
                "--model: names tag and step itself (stage:tag:step); leave out -g and -s"
            )
        for text in self.model:
            try:
                parse_spec(text)
            except ValueError as error:
                problems.append(f"--model={text}: {error}")
        if len(set(self.model)) < len(self.model):
            problems.append(f"--model={' '.join(self.model)}: the same one twice")
        return problems

    def _upstream_problems(self) -> list[str]:
        problems = []
        if self.upstream is None:
            if self.upstream_key_file is not None:
                problems.append("--upstream-key-file: is for --upstream; name that too")
            return problems
        if not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", self.upstream):
            problems.append(
                f"--upstream={self.upstream}: write the address up to /v1, as "
                "http://127.0.0.1:9000/v1; a key goes into --upstream-key-file"
            )
        if self.model_tag is not None or self.step is not None:
            problems.append("--upstream: for a checkpoint beside it write --model stage:tag")
        if self.upstream_key_file is not None:
            try:
                read_upstream_key(self.upstream_key_file)
            except ValueError as error:
                problems.append(f"--upstream-key-file={self.upstream_key_file}: {error}")
        return problems

    def _address_problems(self) -> list[str]:
        if self.api_key_file is not None:
            try:
                read_keys(self.api_key_file)
            except ValueError as error:
                return [f"--api-key-file={self.api_key_file}: {error}"]
        elif not is_loopback(self.host) and self.database == "off":
            return [self.host_problem()]
        return []

    def host_problem(self) -> str:
        """What is wrong with --host while there are neither accounts nor keys."""
        return (
            f"--host={self.host}: other machines could reach the server, so it needs accounts "
            f"(make the first: {FIRST_ADMIN}) or --api-key-file keys.txt (make one: {MAKE_KEY}); "
            "or leave --host out to serve this machine only"
        )

    def _origin_problems(self) -> list[str]:
        problems = []
        for origin in self.allow_origin:
            anyone = origin in ("*", "null")  # null: a file, or a frame of any page that wants it
            if anyone and self.api_key_file is None:
                problems.append(
                    f"--allow-origin={origin}: any page in the browser could use the models, so it "
                    "needs --api-key-file"
                )
            elif not anyone and not re.fullmatch(r"https?://[^/?#\s@*]+", origin):
                problems.append(
                    f"--allow-origin={origin}: write scheme and host as the browser sends them, "
                    "e.g. https://chat.example.org, without a path"
                )
        return problems

    def _oidc_problems(self) -> list[str]:
        problems = []
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            problems.append(
                f"--root-path={self.root_path}: write it as /chat, without a / at its end"
            )
        for flag, value in (("public-url", self.public_url), ("oidc-issuer", self.oidc_issuer)):
            if value is not None and not re.fullmatch(r"https?://[^/?#\s@]+(/[^?#\s]*)?", value):
                problems.append(f"--{flag}={value}: write an address, as https://chat.example.org")
        given = {
            "--oidc-issuer": self.oidc_issuer,
            "--oidc-client-id": self.oidc_client_id,
            "--oidc-client-secret-file": self.oidc_client_secret_file,
            "--oidc-domain": self.oidc_domain,
        }
        missing = [flag for flag, value in given.items() if not value]
        if missing and len(missing) < len(given):
            problems.append(f"{', '.join(missing)}: needed, too, to sign in with OpenID Connect")
        if not missing and self.database == "off":
            problems.append("--oidc-issuer: needs a database; leave out --database off")
        if self.oidc_client_secret_file is not None:
            try:
                read_upstream_key(self.oidc_client_secret_file)
            except ValueError as error:
                file = self.oidc_client_secret_file
                problems.append(f"--oidc-client-secret-file={file}: {error}")
        return problems

    def specs(self) -> list[ModelSpec]:
        """The checkpoints to serve; the first answers requests that name no model."""
        if self.upstream is not None and not self.model:
            return []
        return [parse_spec(text) for text in self.model] or [
            ModelSpec(self.source, self.model_tag, self.step)
        ]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_upstream_key(path: Path) -> str:
    """The one key of a file. ValueError says what to do."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read ({error}); write the key into it") from None
    keys = [line.strip() for line in lines if line.strip()]
    if len(keys) != 1 or not keys[0].isascii() or not keys[0].isprintable() or " " in keys[0]:
        raise ValueError("must hold one key, on one line, of ASCII characters without spaces")
    return keys[0]


def read_keys(path: Path) -> list[str]:
    """The keys of a file: one a line, empty lines and lines that begin with # left out. ValueError
    says what to do.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); make one: {MAKE_KEY}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text; write one key a line") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ValueError(f"holds no key; make one: {MAKE_KEY}")
    for number, key in enumerate(keys, 1):
        if (
            len(key) < MIN_KEY_LENGTH
            or not key.isascii()
            or any(character.isspace() for character in key)
        ):
            raise ValueError(
                f"key {number} must be {MIN_KEY_LENGTH} or more ASCII characters without spaces; "
                f"make one: {MAKE_KEY}"
            )
    return keys
