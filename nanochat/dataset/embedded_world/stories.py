"""Short stories told from the plots of stories.txt."""

from __future__ import annotations

import functools
import random

from nanochat.dataset.embedded_world.facts import relations
from nanochat.dataset.embedded_world.grammar import article, capital
from nanochat.dataset.embedded_world.tables import read_sections, read_words
from nanochat.dataset.embedded_world.words import made_up_word

# Section of stories.txt -> the slots filled from it, all with different words.
_DRAWN = (
    ("objects", "object object2"),
    ("places", "place place2"),
    ("foods", "food food2 food3"),
    ("pets", "pet pet2"),
    ("colors", "color color2"),
    ("feelings", "feeling feeling2"),
    ("jobs", "job job2"),
    ("plants", "plant plant2"),
    ("days", "day day2"),
    ("adjectives", "adjective"),
    ("weather", "weather"),
    ("loads", "load"),
    ("mades", "made"),
    ("petlooks", "petlook"),
    ("relatives", "relative"),
)
_SEEN_AT_NIGHT = ("Mercury", "Venus", "Mars", "Jupiter", "Saturn")
_WITH_ARTICLE = (
    "object object2 pet pet2 petlook color color2 job job2 load adjective weather".split()
)
_PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}


@functools.cache
def _plots() -> tuple[tuple[tuple[bool, tuple[str, ...]], ...], ...]:
    """Every plot as (may be left out, wordings) for each of its lines."""
    return tuple(
        tuple((line.startswith("?"), tuple(line.lstrip("?").split(" | "))) for line in lines)
        for section, lines in read_sections("stories.txt").items()
        if section.startswith("plot.")
    )


def _cast(rng: random.Random) -> dict[str, str]:
    """The people of a story, with their pronouns: a second person of either kind has names ending
    in 2.
    """
    slots = {}
    for key, suffix in (("name", ""), ("friend", "2")):
        kind = rng.choice(("she", "he"))
        subject, object_, possessive = _PRONOUNS[kind]
        slots[key] = rng.choice(read_words("stories.txt", f"names.{kind}"))
        slots.update({f"he{suffix}": subject, f"him{suffix}": object_, f"his{suffix}": possessive})
        slots.update({f"He{suffix}": capital(subject), f"His{suffix}": capital(possessive)})
    if slots["friend"] == slots["name"]:
        return _cast(rng)
    return slots


def _slots(rng: random.Random) -> dict[str, str]:
    """One filling of all slots that plots use."""
    slots = _cast(rng)

    for section, names in _DRAWN:
        words = rng.sample(read_words("stories.txt", section), len(names.split()))
        slots.update(zip(names.split(), words, strict=True))
    slots["glad"] = rng.choice(("glad", "happy", "proud"))
    slots["petname"] = (
        capital(made_up_word(rng))
        if rng.random() < 0.5
        else rng.choice(read_words("stories.txt", "names.pets"))
    )
    fact = rng.choice(relations()["capital"].facts)
    slots["country"], slots["capital"] = fact.subject, fact.answer
    fact = rng.choice(
        [fact for fact in relations()["orbit"].facts if fact.answer in _SEEN_AT_NIGHT]
    )
    slots["nth"], slots["planet"] = fact.subject, fact.answer
    for name in _WITH_ARTICLE:
        slots[f"a_{name}"] = article(slots[name])
    return slots


def story(rng: random.Random) -> str:
    """One story of six to nine sentences, in one paragraph, sometimes with a title."""
    plot = rng.choice(_plots())
    slots = _slots(rng)
    told = " ".join(
        capital(rng.choice(wordings).format_map(slots))
        for optional, wordings in plot
        if not optional or rng.random() < 0.5
    )
    if slots["name"] in told and slots["friend"] in told and rng.random() < 0.15:
        return f"{slots['name']} and {slots['friend']}\n\n{told}"
    return told
