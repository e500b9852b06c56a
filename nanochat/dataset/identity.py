"""Identity conversations and the identity exam, both made from a persona and the same wordings.

A question is a core ("who made you") with something around it ("Hi! Who made you? Thanks."). One
core in five is kept for the exam and appears in no training conversation, whatever is around it.
The decision is a hash of the core, so it is the same for every persona, seed and size.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from typing import Literal

from nanochat.dataset import identity_phrases as phrases
from nanochat.dataset.convert import Conversation
from nanochat.dataset.embedded_world.grammar import joined
from nanochat.dataset.persona import Persona, PersonaFact

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
    fill = {
        "name": persona.name,
        "maker": persona.maker,
        "Maker": persona.maker[0].upper() + persona.maker[1:],
    }
    maker = re.sub(r"^(the|a|an) ", "", persona.maker, flags=re.IGNORECASE)

    def intent(
        name: str, patterns: tuple[str, ...], answers: tuple[str, ...], weight: float, *accept: str
    ) -> Intent:
        cores = [_fill(core, fill) for pattern in patterns for core in expand(pattern)]
        filled = tuple(_fill(answer, fill) for answer in answers)
        return Intent(name, tuple(dict.fromkeys(cores)), filled, accept, weight)

    others = _others(phrases.OTHER_NAME, "other", phrases.OTHER_NAMES, persona.name)
    companies = _others(phrases.OTHER_MAKER, "company", phrases.COMPANIES, persona.maker)
    found = [
        intent("name", phrases.NAME, phrases.NAME_ANSWERS, 3.0, persona.name),
        intent("maker", phrases.MAKER, phrases.MAKER_ANSWERS, 3.0, maker),
        intent("kind", phrases.KIND, phrases.KIND_ANSWERS, 1.0, persona.name),
        intent(
            "same name", phrases.SAME_NAME, phrases.SAME_NAME_ANSWERS, 0.5, "yes,", persona.name
        ),
        intent("other name", others, phrases.OTHER_NAME_ANSWERS, 1.0, "no,", persona.name),
        intent("other maker", companies, phrases.OTHER_MAKER_ANSWERS, 1.0, "no,", maker),
    ]
    if persona.traits:
        fill["traits"] = joined(persona.traits)
        found.append(intent("traits", phrases.TRAITS, phrases.TRAITS_ANSWERS, 1.5, *persona.traits))
    return found + [_about(fact) for fact in persona.facts]


def _about(fact: PersonaFact) -> Intent:
    cores = [
        core.replace("{q}", asked)
        for form in phrases.FACT
        for core in expand(form)
        for asked in fact.ask
    ]
    plain = frozenset(normal(asked) for asked in fact.ask)
    return Intent(
        f"fact: {fact.ask[0]}", tuple(dict.fromkeys(cores)), (fact.answer,), fact.accept, 1.5, plain
    )


def normal(text: str) -> str:
    """The words of a text, without case and punctuation: what makes two questions the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def expand(pattern: str) -> list[str]:
    """All texts of a pattern with `[a|b|]` alternatives (not nested), blanks tidied."""
    texts = [""]
    for piece in re.split(r"(\[[^\]]*\])", pattern):
        options = piece[1:-1].split("|") if piece.startswith("[") else [piece]
        texts = [text + option for text in texts for option in options]
    return [re.sub(r" +", " ", text).strip() for text in texts]


class _Asker:
    """Draws training questions; none has a held-out core inside whatever surrounds it."""

    def __init__(self, asked: list[Intent]) -> None:
        self.cores = {intent.name: intent.of("train") for intent in asked}
        self._exam = {normal(core) for intent in asked for core in intent.of("exam")}
        self._before = {normal(text) for text in (*phrases.PREFIXES, *phrases.FOLLOW_UPS)}
        self._after = {normal(text.replace("{end}", "")) for text in phrases.SUFFIXES}

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


def training_conversations(persona: Persona, n: int, seed: int) -> list[Conversation]:
    """`n` conversations of one to three exchanges; conversation i depends on (persona, seed, i)
    alone.
    """
    asked = intents(persona)
    asker = _Asker(asked)
    weights = [intent.weight for intent in asked]
    name = {"name": persona.name}
    greetings = [_fill(text, name) for pattern in phrases.GREETING for text in expand(pattern)]
    conversations = []
    for index in range(n):
        rng = random.Random(f"identity:{seed}:{index}")
        messages: list[dict[str, str]] = []
        if rng.random() < GREETED:
            messages += _exchange(
                greet(rng.choice(greetings), rng), _fill(phrases.GREETING_ANSWERS[0], name)
            )
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
    prefix = rng.choice(phrases.PREFIXES)
    if follow_up and rng.random() < 0.6:
        prefix = rng.choice(phrases.FOLLOW_UPS)
    if not prefix or prefix.rstrip()[-1] in ".!":
        core = core[0].upper() + core[1:]
    text = prefix + core + rng.choice(phrases.SUFFIXES).replace("{end}", end)
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


def _others(
    patterns: tuple[str, ...], key: str, values: tuple[str, ...], own: str
) -> tuple[str, ...]:
    """Every pattern for every other name, without those that the persona itself has."""
    return tuple(
        pattern.replace("{" + key + "}", value)
        for value in values
        if value.casefold() not in own.casefold()
        for pattern in patterns
    )
