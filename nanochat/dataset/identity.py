"""Identity conversations and the identity exam, both made from a persona and the same wordings.

A question is a core ("who made you") with something around it ("Hi! Who made you? Thanks."). One
core in five is kept for the exam and appears in no training conversation, whatever is around it.
The decision is a hash of the core, so it is the same for every persona, seed and size.
"""

from __future__ import annotations

import functools
import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanochat.dataset.convert import Conversation
from nanochat.dataset.embedded_world.grammar import joined
from nanochat.dataset.embedded_world.tables import read_sections, read_words
from nanochat.dataset.persona import Persona, PersonaFact, as_persona

FILE = "identity.txt"
Split = Literal["train", "exam"]
EXAM_SHARE = 5
# The plainest questions, and those of the facts as the persona's author wrote them, are always
# trained on: a person tries them first.
PLAIN = frozenset(
    {"what is your name", "who are you", "who made you", "what are you like", "what are you"}
)
MULTI_TURN = 0.3
GREETED = 0.1
_LOWER = 0.15
PLAIN_WEIGHT = 12
# What may follow a question; {end} is its "?" or ".".
AFTER = (
    *("{end}",) * PLAIN_WEIGHT,
    *("",) * 2,
    " please{end}",
    "{end} Thanks.",
    "{end} Thank you.",
    "{end}{end}",
    " then{end}",
)
_COMMANDS = (
    "tell say give let describe introduce please i name remind just now okay "
    "answer"  # end in "." not "?"
).split()


@dataclass(frozen=True)
class Intent:
    """One thing that can be asked: all wordings of the question, of the answer, and what an answer
    must contain.
    """

    name: str
    cores: tuple[str, ...]
    answers: tuple[str, ...]
    accept: tuple[str, ...]
    weight: float = 1.0
    plain: frozenset[str] = PLAIN

    def of(self, split: Split) -> list[str]:
        """The cores of a split."""
        return [core for core in self.cores if self._held_out(core) == (split == "exam")]

    def _held_out(self, core: str) -> bool:
        text = normal(core)
        return text not in self.plain and zlib.crc32(f"identity:{text}".encode()) % EXAM_SHARE == 0


def intents(persona: Persona) -> list[Intent]:
    """Everything that can be asked about a persona."""
    maker = re.sub(r"^(the|a|an) ", "", persona.maker, flags=re.IGNORECASE)
    name = persona.name
    found = [
        _intent("name", persona, 3.0, name),
        _intent("maker", persona, 3.0, maker),
        _intent("kind", persona, 1.0, name),
        _intent("same name", persona, 0.5, "yes,", name),
        _intent("other name", persona, 1.0, "no,", name),
        _intent("other maker", persona, 1.0, "no,", maker),
    ]
    if persona.traits:
        found.append(_intent("traits", persona, 1.5, *persona.traits))
    return found + [_about(fact) for fact in persona.facts]


def _intent(name: str, persona: Persona, weight: float, *accept: str) -> Intent:
    """One of identity.txt's questions. accept: what its answers must contain."""
    fill = _slots(persona)
    patterns: Iterable[str] = _wordings(f"{name}.ask")
    # Somebody else's names, without those that the persona itself has.
    for slot, own in (("other", persona.name), ("company", persona.maker)):
        if any("{" + slot + "}" in pattern for pattern in patterns):
            patterns = [
                pattern.replace("{" + slot + "}", value)
                for value in read_words(FILE, slot)
                if value.casefold() not in own.casefold()
                for pattern in patterns
            ]
    cores = [_fill(core, fill) for pattern in patterns for core in expand(pattern)]
    answers = tuple(_fill(answer, fill) for answer in _wordings(f"{name}.answer"))
    return Intent(name, tuple(dict.fromkeys(cores)), answers, accept, weight)


def _about(fact: PersonaFact) -> Intent:
    cores = [
        core.replace("{q}", asked)
        for form in _wordings("fact.ask")
        for core in expand(form)
        for asked in fact.ask
    ]
    plain = frozenset(normal(asked) for asked in fact.ask)
    return Intent(
        f"fact: {fact.ask[0]}", tuple(dict.fromkeys(cores)), (fact.answer,), fact.accept, 1.5, plain
    )


def _wordings(section: str) -> tuple[str, ...]:
    """Lines of identity.txt with the alternatives of {tell}, {made} and {done} in place."""
    sections = read_sections(FILE)
    often = {slot: f"({sections[slot][0]})" for slot in ("tell", "made", "done")}
    return tuple(_fill(line, often) for line in sections[section])


def _slots(persona: Persona) -> dict[str, str]:
    maker = persona.maker
    slots = {"name": persona.name, "maker": maker, "Maker": maker[0].upper() + maker[1:]}
    return slots | ({"traits": joined(persona.traits)} if persona.traits else {})


@functools.cache
def _before() -> tuple[str, ...]:
    """What may precede a question: nothing as often as everything else is likely to."""
    return ("",) * PLAIN_WEIGHT + tuple(f"{line} " for line in read_sections(FILE)["before"])


@functools.cache
def _before_more() -> tuple[str, ...]:
    """The same where the conversation goes on."""
    return tuple(f"{line} " for line in read_sections(FILE)["before.more"])


def normal(text: str) -> str:
    """The words of a text, without case and punctuation: what makes two questions the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def expand(pattern: str) -> list[str]:
    """All texts of a pattern with `(a|b|)` alternatives (not nested), blanks tidied."""
    texts = [""]
    for piece in re.split(r"(\([^)]*\))", pattern):
        options = piece[1:-1].split("|") if piece.startswith("(") else [piece]
        texts = [text + option for text in texts for option in options]
    return [re.sub(r" +", " ", text).strip() for text in texts]


class _Asker:
    """Draws training questions; none has a held-out core inside whatever surrounds it."""

    def __init__(self, asked: list[Intent]) -> None:
        self.cores = {intent.name: intent.of("train") for intent in asked}
        self._exam = {normal(core) for intent in asked for core in intent.of("exam")}
        self._before = {normal(text) for text in (*_before(), *_before_more())}
        self._after = {normal(text.replace("{end}", "")) for text in AFTER}

    def ask(self, intent: Intent, rng: random.Random, follow_up: bool) -> str:
        while True:
            question = surround(rng.choice(self.cores[intent.name]), rng, follow_up)
            if not self.is_exam(question):
                return question

    def is_exam(self, question: str) -> bool:
        """Whether a held-out core is left when what may surround a question is taken away ("please"
        + "tell me").
        """
        text = normal(question)
        starts = [
            text.removeprefix(b).strip()
            for b in self._before
            if f"{text} ".startswith(f"{b} " if b else "")
        ]
        return any(
            start.removesuffix(a).strip() in self._exam
            for start in starts
            for a in self._after
            if f" {start}".endswith(f" {a}" if a else "")
        )


def identity_conversations(
    persona: Persona | Path | str | None = None, n: int = 1000, seed: int = 0
) -> list[Conversation]:
    """`n` training conversations of one to three exchanges, made offline from templates.

    Conversation i depends on (persona, seed, i) alone; no question is one of the exam's. ValueError
    for a bad persona or n < 0.
    """
    if n < 0:
        raise ValueError(f"n={n}: must be 0 or more")
    persona = as_persona(persona)
    asked = intents(persona)
    asker = _Asker(asked)
    weights = [intent.weight for intent in asked]
    slots = _slots(persona)
    greetings = [_fill(text, slots) for form in _wordings("greeting.ask") for text in expand(form)]
    welcome = _fill(_wordings("greeting.answer")[0], slots)
    conversations = []
    for index in range(n):
        rng = random.Random(f"identity:{seed}:{index}")
        messages: list[dict[str, str]] = []
        if rng.random() < GREETED:
            messages += _exchange(greet(rng.choice(greetings), rng), welcome)
        number = 1 if rng.random() >= MULTI_TURN else rng.choice((2, 2, 3))
        for intent in _distinct(rng, asked, weights, number):
            messages += _exchange(
                asker.ask(intent, rng, bool(messages)), rng.choice(intent.answers)
            )
        conversations.append({"messages": messages})
    return conversations


def exam_questions(persona: Persona, n: int = 240, seed: int = 0) -> list[tuple[str, Intent]]:
    """`n` different questions with held-out cores, the intents taking turns, each core used before
    any is repeated.

    ValueError when there are not that many.
    """
    rng = random.Random(f"identity exam:{seed}")
    asked = intents(persona)
    waiting: dict[str, list[str]] = {intent.name: [] for intent in asked}
    chosen: dict[str, tuple[str, Intent]] = {}
    turn = stale = 0
    while (
        len(chosen) < n and stale < 1000
    ):  # so many draws without a new question: there are no more
        intent = asked[turn % len(asked)]
        turn, stale, before = turn + 1, stale + 1, len(chosen)
        if not waiting[intent.name]:
            waiting[intent.name] = rng.sample(held := intent.of("exam"), len(held))
        if waiting[intent.name]:
            question = surround(waiting[intent.name].pop(), rng)
            chosen.setdefault(normal(question), (question, intent))
            stale = 0 if len(chosen) > before else stale
    if len(chosen) < n:
        raise ValueError(f"only {len(chosen)} different exam questions could be made, not {n}")
    return list(chosen.values())


def surround(core: str, rng: random.Random, follow_up: bool = False) -> str:
    """A core as somebody might type it: greeting, capital letter, punctuation, thanks, now and then
    all lower case.
    """
    first = re.match(r"\w+", core)
    end = "." if first and first[0].casefold() in _COMMANDS else "?"
    prefix = rng.choice(_before())
    if follow_up and rng.random() < 0.6:
        prefix = rng.choice(_before_more())
    if not prefix or prefix.rstrip()[-1] in ".!":
        core = core[0].upper() + core[1:]
    text = prefix + core + rng.choice(AFTER).replace("{end}", end)
    return text.lower() if rng.random() < _LOWER else text


def greet(greeting: str, rng: random.Random) -> str:
    """A greeting as somebody might type it."""
    text = greeting[0].upper() + greeting[1:] + rng.choice(("!", ".", ""))
    return text.lower() if rng.random() < _LOWER else text


def _distinct(
    rng: random.Random, asked: list[Intent], weights: list[float], number: int
) -> list[Intent]:
    picked: dict[str, Intent] = {}
    while len(picked) < min(number, len(asked)):
        intent = rng.choices(asked, weights)[0]
        picked[intent.name] = intent
    return list(picked.values())


def _exchange(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text
