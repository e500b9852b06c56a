"""Facts as relations: pairs (subject, answer) with their wordings for text, for training and for
the exam.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from nanochat.dataset.embedded_world.grammar import ORDINALS, article, capital, plural
from nanochat.dataset.embedded_world.tables import read_sections, read_table

PLANETS = tuple("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split())
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PHRASE_FILES = ("places", "science", "animals", "time", "words")
_OPEN_PLACES = {"ocean", "jungle", "forest", "desert", "savanna"}


@dataclass(frozen=True)
class Fact:
    """One fact in all its wordings: `text` statements, `ask` training questions, `exam` held-out
    questions.
    """

    relation: str
    subject: str
    answer: str
    text: tuple[str, ...]
    ask: tuple[str, ...]
    exam: tuple[str, ...]
    reply: str


@dataclass(frozen=True)
class Relation:
    """All facts of one kind, and every answer of that kind (a reply with a second one in it is
    wrong).
    """

    name: str
    facts: tuple[Fact, ...]
    answers: tuple[str, ...]


def _slots(subject: str, answer: str) -> dict[str, str]:
    """What a wording may mention; phrases_*.txt explain the names."""
    slots = {
        "s": subject,
        "a": answer,
        "as": article(subject),
        "aa": article(answer),
        "ps": plural(subject),
        "pa": "fish" if answer == "fish" else plural(answer),
        "xa": f"the {answer}" if answer in _OPEN_PLACES else article(answer),
        "n": str(ORDINALS.index(subject) + 1) if subject in ORDINALS else "",
    }
    unit, _, place = subject.replace(" on ", " @on ").replace(" in ", " @in ").partition(" @")
    slots["u"], slots["c"] = unit, place.replace("@", "")
    for name in ("s", "a", "as", "aa", "c"):
        slots[name.capitalize()] = capital(slots[name])
    return slots


def _pairs() -> dict[str, list[tuple[str, str]]]:
    """The (subject, answer) pairs of every relation."""
    countries, elements, animals = (
        read_table(f"{name}.tsv") for name in ("countries", "elements", "animals")
    )

    def column(rows: Iterable[dict[str, str]], subject: str, answer: str) -> list[tuple[str, str]]:
        return [(row[subject], row[answer]) for row in rows if subject in row and answer in row]

    def ring(names: tuple[str, ...], step: int) -> list[tuple[str, str]]:
        return [(name, names[(index + step) % len(names)]) for index, name in enumerate(names)]

    listed = {
        name: [(left, right) for left, _, right in (line.partition(" = ") for line in lines)]
        for name, lines in read_sections("pairs.txt").items()
    }
    listed["opposite"] += [(right, left) for left, right in listed["opposite"]]
    named = [row for row in countries if row["country"] not in row["capital"]]
    return {
        "capital": column(countries, "country", "capital"),
        "country": column(named, "capital", "country"),
        "continent": column(countries, "country", "continent"),
        "currency": column(countries, "country", "currency"),
        "language": column(countries, "country", "language"),
        "symbol": column(elements, "element", "symbol"),
        "element": column(elements, "symbol", "element"),
        "number": column(elements, "element", "number"),
        "state": column(elements, "element", "state"),
        "orbit": list(zip(ORDINALS[:8], PLANETS, strict=True)),
        "next_planet": ring(PLANETS, 1)[:-1],
        **{
            name: column(animals, "animal", name)
            for name in ("young", "sound", "home", "legs", "group", "food")
        },
        "tomorrow": ring(DAYS, 1),
        "yesterday": ring(DAYS, -1),
        "leap": ring(DAYS, 2),
        "next_month": ring(MONTHS, 1),
        "last_month": ring(MONTHS, -1),
        "month": list(zip(ORDINALS, MONTHS, strict=True)),
        "days": [(month, str(days)) for month, days in zip(MONTHS, MONTH_DAYS, strict=True)],
        **listed,
    }


@functools.cache
def phrases() -> dict[str, tuple[str, ...]]:
    """All wordings by `relation.kind`."""
    merged: dict[str, tuple[str, ...]] = {}
    for name in _PHRASE_FILES:
        merged.update(read_sections(f"phrases_{name}.txt"))
    return merged


@functools.cache
def relations() -> dict[str, Relation]:
    """Every relation of the world by name."""
    found = {}
    for name, pairs in _pairs().items():
        wordings = {kind: phrases()[f"{name}.{kind}"] for kind in ("text", "ask", "exam", "answer")}
        facts = []
        for subject, answer in pairs:
            slots = _slots(subject, answer)
            filled = {
                kind: tuple(line.format_map(slots) for line in lines)
                for kind, lines in wordings.items()
            }
            facts.append(
                Fact(
                    name,
                    subject,
                    answer,
                    filled["text"],
                    filled["ask"],
                    filled["exam"],
                    filled["answer"][0],
                )
            )
        found[name] = Relation(
            name, tuple(facts), tuple(dict.fromkeys(answer for _, answer in pairs))
        )
    return found


@functools.cache
def all_facts() -> tuple[Fact, ...]:
    """Every fact of every relation, in a fixed order."""
    return tuple(fact for relation in relations().values() for fact in relation.facts)


@functools.cache
def facts_about(*names: str) -> dict[str, tuple[Fact, ...]]:
    """The facts of the named relations by subject, such as all that is known about France."""
    grouped: dict[str, list[Fact]] = {}
    for name in names:
        for fact in relations()[name].facts:
            grouped.setdefault(fact.subject, []).append(fact)
    return {subject: tuple(facts) for subject, facts in grouped.items()}
