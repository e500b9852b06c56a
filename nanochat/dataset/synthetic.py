"""Identity conversations written by a language model behind any OpenAI-compatible endpoint, or
offline by templates.

Every request differs in topic, length and style, drawn from a seed: asked the same thing a thousand
times, a model writes the same ten conversations. What comes back is checked like any other file of
conversations.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nanochat.config import Short
from nanochat.dataset.chat_endpoint import ChatEndpoint, Refused, Unusable, pause_s
from nanochat.dataset.conversations import read_conversations, to_line, write_conversations
from nanochat.dataset.convert import Conversation, to_conversation
from nanochat.dataset.embedded_world.tables import read_sections
from nanochat.dataset.identity import identity_conversations
from nanochat.dataset.persona import Persona, load_persona
from nanochat.runtime.base_dir import base_dir, expanded
from nanochat.runtime.progress import Progress


@dataclass
class SyntheticConfig:
    """Make identity conversations: offline from templates, or with --base-url through a language
    model.
    """

    n: Annotated[int, Short("-n")] = 1000
    """Conversations the file is to hold in the end."""
    output: str | None = None
    """Default: identity_conversations.jsonl in the base directory."""
    persona: str | None = None
    """YAML file; default: the package's own persona."""
    seed: int = 0
    """Decides templates, or topics and styles asked for."""
    overwrite: bool = False
    """Start the file anew instead of refusing or continuing."""
    base_url: str | None = None
    """An OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1."""
    model: str | None = None
    """The endpoint's name of the model."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; sent when it is set."""
    concurrency: int = 4
    """Requests at a time."""
    retries: int = 4
    """Further tries of a request that fails."""
    timeout_s: float = 120.0
    """Longest wait for one request, in seconds."""
    temperature: float = 1.0
    """Temperature of the endpoint's sampling."""

    def problems(self) -> list[str]:
        found = [
            f"--{name.replace('_', '-')}={getattr(self, name)}: must be {least} or more"
            for name, least in (("n", 1), ("concurrency", 1), ("retries", 0), ("temperature", 0))
            if getattr(self, name) < least
        ]
        if not self.timeout_s > 0:
            found.append(f"--timeout-s={self.timeout_s}: must be above 0")
        if self.base_url is None:
            return found
        if not self.base_url.startswith(("http://", "https://")):
            found.append(f"--base-url={self.base_url}: must begin with http:// or https://")
        if not self.model:
            found.append(
                "--model: must be given with --base-url (the endpoint's name of the model)"
            )
        return found


def generate(cfg: SyntheticConfig) -> Path:
    """Write the file and return its path. ValueError for impossible settings or an endpoint that
    refuses.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    persona = load_persona(cfg.persona)
    path = expanded(cfg.output) if cfg.output else base_dir() / "identity_conversations.jsonl"
    if cfg.base_url is None:
        if path.exists() and not cfg.overwrite:
            raise ValueError(f"{path} exists; --overwrite replaces it, --output names another file")
        write_conversations(path, identity_conversations(persona, cfg.n, cfg.seed))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        if cfg.overwrite:
            path.unlink(missing_ok=True)
        _fill_file(cfg, persona, path)
    print(
        f"{path}: {sum(1 for _ in open(path, encoding='utf-8')):,} conversations; train with "
        f"--data {path}"
    )
    return path


def _fill_file(cfg: SyntheticConfig, persona: Persona, path: Path) -> None:
    """Append conversations until the file has `cfg.n` different ones. Interrupted runs go on where
    they were.
    """
    seen = _already_there(path, persona)
    todo = max(0, cfg.n - len(seen))
    # duplicates and bad answers use some up
    attempts = iter(range(len(seen), len(seen) + 3 * todo + 10))
    stop = threading.Event()
    left_out = 0
    with (
        open(path, "a", encoding="utf-8") as file,
        ThreadPoolExecutor(cfg.concurrency) as pool,
        Progress(todo, "conversations") as progress,
    ):
        try:
            while len(seen) < cfg.n:
                batch = list(itertools.islice(attempts, cfg.n - len(seen)))
                if not batch:
                    raise ValueError(
                        f"only {len(seen)} of {cfg.n} conversations came; run it again, or lower -n"
                    )
                futures = [pool.submit(_one, cfg, persona, number, stop) for number in batch]
                for conversation in (future.result() for future in as_completed(futures)):
                    key = json.dumps(conversation, sort_keys=True)
                    if conversation is None or key in seen:
                        left_out += 1
                        continue
                    seen.add(key)
                    file.write(to_line(conversation))
                    file.flush()
                    progress.advance(1, left_out=left_out)
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _already_there(path: Path, persona: Persona) -> set[str]:
    """Keys of the conversations of an unfinished run; a last line that was cut off is removed."""
    if not path.exists():
        return set()
    with open(path, "r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)
    if b"\n" not in data:
        return set()
    conversations, problems = read_conversations(path)
    if problems:
        raise ValueError(f"{problems[0]}; correct the file, or start anew with --overwrite")
    keys = {json.dumps(conversation, sort_keys=True) for conversation in conversations}
    if not any(persona.name.casefold() in key.casefold() for key in keys):
        raise ValueError(
            f"{path} never mentions {persona.name!r}: another persona's file; --overwrite starts "
            "it anew"
        )
    return keys


def _one(
    cfg: SyntheticConfig, persona: Persona, number: int, stop: threading.Event
) -> Conversation | None:
    """One conversation; None when the endpoint gave nothing usable. Raises `Refused` when it never
    will.
    """
    endpoint = endpoint_of(cfg)
    for attempt in range(cfg.retries + 1):
        rng = random.Random(f"{cfg.seed}:{number}:{attempt}")
        pause = 0.0
        try:
            return parse_answer(endpoint.ask(prompt(persona, rng)).text)
        except Unusable:
            pass
        except OSError as error:  # no connection, time-out, a busy server
            if attempt == cfg.retries:
                raise Refused(
                    f"{cfg.base_url}: no answer after {attempt + 1} tries ({error})"
                ) from None
            pause = pause_s(error, attempt, rng)
        if stop.wait(pause):
            return None
    return None


def endpoint_of(cfg: SyntheticConfig) -> ChatEndpoint:
    """The endpoint that the settings name."""
    assert cfg.base_url is not None
    return ChatEndpoint(
        base_url=cfg.base_url,
        model=cfg.model or "",
        api_key_env=cfg.api_key_env,
        timeout_s=cfg.timeout_s,
        temperature=cfg.temperature,
    )


def prompt(persona: Persona, rng: random.Random) -> str:
    """What the model is asked to write: facts, a topic, a length and a style."""
    sections = read_sections("synthetic.txt")
    facts = [f"- asked {fact.ask[0]!r} it says: {fact.answer}" for fact in persona.facts]
    slots = {
        "name": persona.name,
        "maker": persona.maker,
        "traits": ", ".join(persona.traits) or "plain and helpful",
        "facts": "\n".join(["What it knows about itself:", *facts]) if facts else "",
        "topic": rng.choice(sections["topic"]),
        "style": rng.choice(sections["style"]),
        "questions": rng.choice((1, 1, 2, 3)),
    }
    lines = (line.format_map(slots) for line in sections["prompt"])
    return "\n".join(filter(None, lines))


def parse_answer(text: str) -> Conversation:
    """The conversation in a model's answer, be it in a code fence or between sentences. `Unusable`
    if there is none.
    """
    starts = [place for place in (text.find("["), text.find("{")) if place >= 0]
    try:
        record, _ = json.JSONDecoder().raw_decode(text, min(starts))
        return to_conversation(record).conversation
    except (ValueError, RecursionError) as error:
        raise Unusable(str(error)) from None
