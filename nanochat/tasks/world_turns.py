"""How each part of the embedded world's conversations is asked and answered.

A part makes one exchange, a `WorldTurn`: the question, the reply (text, or parts with a calculator
call) and what a judge needs to know. Held-out turns use words, operands or wordings that no
training text contains.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanochat.dataset.embedded_world import offtopic as outside
from nanochat.dataset.embedded_world.dialogues import TOPICS
from nanochat.dataset.embedded_world.facts import Fact, all_facts, relations
from nanochat.dataset.embedded_world.split import held_out_pair
from nanochat.dataset.embedded_world.tables import read_sections
from nanochat.dataset.embedded_world.words import exam_word, spelled, training_word

# A prime larger than the number of facts: rows go through all of them before one returns.
_FACT_STRIDE = 7919


@dataclass(frozen=True)
class WorldTurn:
    """One question and its reply. `wanted`: what a right reply holds; `rivals`: what it must not
    hold.
    """

    question: str
    reply: str | list[dict[str, str]]
    wanted: str
    rivals: tuple[str, ...] = ()

    def messages(self) -> list[dict[str, Any]]:
        """The user's message and the assistant's."""
        return [
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.reply},
        ]


@dataclass(frozen=True)
class Ask:
    """What is asked for: the row, whether it belongs to the exam, and whether the calculator may be
    used.
    """

    index: int
    held_out: bool
    tool: bool = True


def _wordings(name: str, ask: Ask, rng: random.Random) -> tuple[str, ...]:
    """Wordings to choose from. The exam mixes known wordings (with items never seen) and wordings
    never seen.
    """
    skills = read_sections("phrases_skills.txt")
    held_out = ask.held_out and rng.random() < 0.5
    return skills[f"{name}.exam" if held_out else f"{name}.ask"]


def _asked(question: str, ask: Ask, rng: random.Random) -> str:
    """The question, and where the calculator may not be used, that it may not."""
    return question if ask.tool else rng.choice(_wordings("head", ask, rng)).format(q=question)


def _called(expression: str, result: str, reply: str) -> list[dict[str, str]]:
    """An assistant message that calls the calculator and then says the result."""
    return [
        {"type": "python", "text": expression},
        {"type": "python_output", "text": result},
        {"type": "text", "text": reply},
    ]


# --- facts


def fact_turn(fact: Fact, question: str) -> WorldTurn:
    """The turn for one wording of one fact."""
    rivals = tuple(answer for answer in relations()[fact.relation].answers if answer != fact.answer)
    return WorldTurn(question, fact.reply, fact.answer, rivals)


@functools.cache
def _held_out_questions() -> tuple[tuple[Fact, str], ...]:
    """Every held-out wording of every fact, in an order of its own."""
    asked = [(fact, question) for fact in all_facts() for question in fact.exam]
    random.Random("exam:facts").shuffle(asked)
    return tuple(asked)


def facts(rng: random.Random, ask: Ask) -> WorldTurn:
    """A fact in a wording of training, or, held out, in one that training never uses."""
    if ask.held_out:
        asked = _held_out_questions()
        return fact_turn(*asked[ask.index % len(asked)])
    known = all_facts()
    fact = known[ask.index * _FACT_STRIDE % len(known)]
    return fact_turn(fact, rng.choice(fact.ask))


# --- arithmetic

_SIGNS: dict[str, Callable[[int, int], int]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x // y,
}


def _operands(rng: random.Random, sign: str, tool: bool) -> tuple[int, int]:
    """Operands of one to three digits; without the tool, small enough for the head."""
    if not tool and sign in "*/":
        x, y = rng.randint(2, 25), rng.randint(2, 9)
    elif not tool:
        x, y = rng.randint(1, 60), rng.randint(1, 40)
    elif sign == "/":
        y = rng.randint(2, 99)
        x = rng.randint(1, max(1, 999 // y))
    else:
        x, y = (rng.randrange(1, 10 ** rng.choice((1, 2, 2, 3, 3))) for _ in range(2))
    if sign == "/":
        return x * y, y
    if sign == "-" and x < y and rng.random() < 0.9:
        return y, x
    return x, y


def arithmetic(rng: random.Random, ask: Ask) -> WorldTurn:
    """A sum, difference, product or exact quotient. Held out: operands that training never uses
    together.
    """
    sign = rng.choice("+-*/")
    while True:
        x, y = _operands(rng, sign, ask.tool)
        if held_out_pair(x, y) == ask.held_out:
            break
    name = f"arithmetic.{sign}" if rng.random() < 0.5 else "arithmetic.any"
    shown = "x" if sign == "*" and rng.random() < 0.12 else sign
    written = f"{x}{sign}{y}" if rng.random() < 0.25 else f"{x} {shown} {y}"
    question = _asked(rng.choice(_wordings(name, ask, rng)).format(x=x, y=y, e=written), ask, rng)
    result = str(_SIGNS[sign](x, y))
    text = f"The answer is {result}."
    if ask.tool:
        return WorldTurn(question, _called(f"{x}{sign}{y}", result, text), result)
    return WorldTurn(question, f"{x} {sign} {y} = {result}. {text}", result)


# --- spelling and counting


def _written(rng: random.Random, word: str, quoted: float) -> str:
    return f'"{word}"' if rng.random() < quoted else word


def spelling(rng: random.Random, ask: Ask) -> WorldTurn:
    """A word letter by letter. Held out: a word that no training text contains."""
    word = exam_word(rng) if ask.held_out else training_word(rng)
    question = rng.choice(_wordings("spelling", ask, rng)).format(w=_written(rng, word, 0.25))
    return WorldTurn(question, spelled(word), word)


def counting(rng: random.Random, ask: Ask) -> WorldTurn:
    """How often a letter appears in a word. The call spells the word, because a token is not a
    letter.
    """
    word = exam_word(rng) if ask.held_out else training_word(rng, name=0)
    repeated = [letter for letter in word if word.count(letter) > 1]
    draw = rng.random()
    letter = rng.choice(repeated) if repeated and draw < 0.45 else rng.choice(word)
    if draw > 0.85:
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    count = word.count(letter)
    slots = {"w": _written(rng, word, 0.4), "l": _written(rng, letter, 0.15)}
    question = _asked(rng.choice(_wordings("counting", ask, rng)).format(**slots), ask, rng)
    text = f"The letter {letter} appears {count} time{'' if count == 1 else 's'}."
    wanted = f"{letter} {count}"
    if ask.tool:
        call = f'"{spelled(word)}".count("{letter}")'
        return WorldTurn(question, _called(call, str(count), text), wanted)
    reply = text if rng.random() < 0.6 else f"{_marked(word, letter)} {text}"
    return WorldTurn(question, reply, wanted)


def _marked(word: str, letter: str) -> str:
    """`Looking for -r: s-t-r1-a-w-b-e-r2-r3-y.`: the wanted letter numbered, for counting without
    the tool.

    `-r` is the token that the letter is inside the word, so that finding it there is comparing
    tokens.
    """
    seen, parts = 0, []
    for each in word:
        seen += each == letter
        parts.append(f"{each}{seen}" if each == letter else each)
    return f"Looking for -{letter}: {'-'.join(parts)}."


# --- small talk


def smalltalk(rng: random.Random, ask: Ask) -> WorldTurn:
    """A greeting, thanks, a mood, a joke ...; any reply of the topic is right."""
    talk = read_sections("smalltalk.txt")
    topic = rng.choice(TOPICS)
    question = rng.choice(talk[f"{topic}.exam" if ask.held_out else f"{topic}.ask"])
    return WorldTurn(question, rng.choice(talk[f"{topic}.reply"]), topic)


def offtopic(rng: random.Random, ask: Ask) -> WorldTurn:
    """A question about what the world does not hold; the reply says so."""
    if ask.held_out:
        asked = outside.held_out_questions()
        return WorldTurn(asked[ask.index % len(asked)], outside.replies()[0], "offtopic")
    return WorldTurn(outside.question(rng), rng.choice(outside.replies()), "offtopic")


MAKERS: dict[str, Callable[[random.Random, Ask], WorldTurn]] = {
    "facts": facts,
    "arithmetic": arithmetic,
    "spelling": spelling,
    "counting": counting,
    "smalltalk": smalltalk,
    "offtopic": offtopic,
}
