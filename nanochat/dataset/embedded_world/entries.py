"""Encyclopaedia entries, lists and quizzes over the fact tables: what the text says about the
world.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

from nanochat.dataset.embedded_world.facts import Fact, facts_about, relations
from nanochat.dataset.embedded_world.grammar import capital
from nanochat.dataset.embedded_world.tables import people, wordings

# What an entry about one subject draws on; the second name of a pair says the same thing from the
# other side.
_SUBJECTS = (
    (("capital", "continent", "currency", "language"), 5),
    (("symbol", "number", "state"), 3),
    (("young", "sound", "home", "legs", "group", "food"), 3),
    (("tomorrow", "yesterday", "leap"), 1),
    (("next_month", "last_month", "days"), 1),
)

# Relations that no entry is about are told more often, so that every fact of the world comes up
# about equally often.
_BOOST = {
    "leap": 5.0,  # few facts, and the neighbouring days are easily confused
    "opposite": 2.2,
    "country": 1.9,
    "element": 1.7,
    "past": 1.6,
    "plural": 1.4,
    "color": 1.4,
    "young": 1.2,
}


@functools.cache
def _subjects() -> tuple[tuple[tuple[Fact, ...], ...], tuple[int, ...]]:
    """(facts of every subject with at least two, weights)."""
    grouped, weights = [], []
    for names, weight in _SUBJECTS:
        for facts in facts_about(*names).values():
            if len(facts) > 1:
                grouped.append(facts)
                weights.append(weight)
    return tuple(grouped), tuple(weights)


@functools.cache
def _weighted_relations() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Relations weighted between one each and one per fact, so that small ones are not lost among
    the countries.
    """
    found = relations()
    return tuple(found), tuple(
        len(rel.facts) ** 0.75 * _BOOST.get(name, 1) for name, rel in found.items()
    )


def some_fact(rng: random.Random) -> Fact:
    """Any fact of the world."""
    names, weights = _weighted_relations()
    return rng.choice(relations()[rng.choices(names, weights)[0]].facts)


def entry(rng: random.Random) -> str:
    """What is known about one country, element, animal, day or month."""
    subjects, weights = _subjects()
    facts = list(rng.choices(subjects, weights)[0])
    rng.shuffle(facts)
    lines = [rng.choice(fact.text) for fact in facts]
    subject = facts[0].subject
    if rng.random() < 0.5:
        lines += [rng.choice(fact.text) for fact in rng.sample(facts, rng.randint(1, len(facts)))]
    if rng.random() < 0.2:
        lines.insert(0, rng.choice((f"Let us talk about {subject}.", f"This is about {subject}.")))
    body = " ".join(dict.fromkeys(lines))
    return f"{capital(subject)}\n\n{body}" if rng.random() < 0.3 else body


def same_relation(rng: random.Random) -> str:
    """Several facts of one kind in one wording or in mixed wordings."""
    names, weights = _weighted_relations()
    facts = relations()[rng.choices(names, weights)[0]].facts
    chosen = rng.sample(facts, min(len(facts), rng.randint(5, 10)))
    if rng.random() < 0.5:
        wording = rng.randrange(len(chosen[0].text))
        return ("\n" if rng.random() < 0.4 else " ").join(fact.text[wording] for fact in chosen)
    return " ".join(rng.choice(fact.text) for fact in chosen)


def mixed_facts(rng: random.Random) -> str:
    """Unrelated facts, as in a book of knowledge."""
    lines = [rng.choice(some_fact(rng).text) for _ in range(rng.randint(5, 9))]
    opening = rng.choice(("", "", *wordings("opening")))
    return (opening + " " if opening else "") + " ".join(lines)


def quiz(rng: random.Random) -> str:
    """Questions and answers, in the wordings that conversations are trained on."""
    marks = rng.choice((("Question: ", "Answer: "), ("Q: ", "A: "), ("", "")))
    lines = []
    for _ in range(rng.randint(4, 7)):
        fact = some_fact(rng)
        reply = fact.reply if rng.random() < 0.8 else rng.choice(fact.text)
        lines += [marks[0] + rng.choice(fact.ask), marks[1] + reply]
    return "\n".join(lines)


def conversation(rng: random.Random) -> str:
    """Two people who ask each other about the world."""
    one, two = rng.sample(people(), 2)
    lines = []
    for _ in range(rng.randint(3, 5)):
        fact = some_fact(rng)
        lines.append(f"{one}: {rng.choice(fact.ask)}")
        lines.append(
            f"{two}: {rng.choice(('', '', '', 'I know that. ', 'That is easy. '))}{fact.reply}"
        )
    return "\n".join(lines)


def in_order(rng: random.Random) -> str:
    """The lists that everybody learns by heart: planets, days, months, colors of the rainbow,
    seasons.
    """
    chosen = rng.sample(wordings("lists"), rng.randint(2, 4))
    return rng.choice(("\n", " ")).join(dict.fromkeys(chosen))


def compared(rng: random.Random) -> str:
    """Two subjects of one kind side by side."""
    names, _ = _weighted_relations()
    relation = relations()[
        rng.choice([name for name in names if len(relations()[name].facts) > 20])
    ]
    first, second = rng.sample(relation.facts, 2)
    return " ".join(
        (
            rng.choice(first.text),
            rng.choice(second.text),
            rng.choice(first.ask),
            first.reply,
            rng.choice(second.ask),
            second.reply,
        )
    )


KINDS: dict[Callable[[random.Random], str], float] = {
    entry: 0.32,
    same_relation: 0.22,
    mixed_facts: 0.14,
    quiz: 0.15,
    conversation: 0.09,
    in_order: 0.03,
    compared: 0.05,
}
