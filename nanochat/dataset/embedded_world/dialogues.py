"""Everyday talk between people: greetings, moods, favourite colors, jokes."""

from __future__ import annotations

import random
from collections.abc import Callable

from nanochat.dataset.embedded_world.entries import some_fact
from nanochat.dataset.embedded_world.grammar import capital
from nanochat.dataset.embedded_world.tables import people, read_sections, read_words, say, wordings

# What a chat model is trained on; its favorite color and what it can do belong to its persona.
TOPICS = ("hello", "thanks", "bye", "mood.sad", "mood.glad", "joke", "unknown", "learn")


def small_talk(rng: random.Random) -> str:
    """A short meeting of two people, line by line."""
    one, two = rng.sample(people(), 2)
    talk = read_sections("smalltalk.txt")
    lines = []
    if rng.random() < 0.5:
        lines += [f"{one}: Hello, {two}!", f"{two}: Hi, {one}!"]
    for _ in range(rng.randint(2, 4)):
        if rng.random() < 0.5:
            said, *replies = rng.choice(talk["talk"]).split(" | ")
            reply = rng.choice(replies)
        elif rng.random() < 0.6:
            topic = rng.choice(("color", "mood.sad", "mood.glad", "joke"))
            said, reply = rng.choice(talk[f"{topic}.ask"]), rng.choice(talk[f"{topic}.reply"])
        else:
            fact = some_fact(rng)
            said, reply = rng.choice(fact.ask), fact.reply
        lines += [f"{one}: {said}", f"{two}: {reply}"]
    if rng.random() < 0.4:
        lines += [f"{one}: Goodbye, {two}!", f"{two}: See you soon, {one}!"]
    return "\n".join(lines)


def favorites(rng: random.Random) -> str:
    """What two people like best, each in one of several ways."""
    names = rng.sample(people(), 2)
    drawn = [rng.sample(read_words("stories.txt", kind), 2) for kind in ("colors", "foods", "pets")]
    return " ".join(
        say(rng, "favorites", name=name, color=color, food=food, pet=pet)
        for name, color, food, pet in zip(names, *drawn, strict=True)
    )


def letter(rng: random.Random) -> str:
    """A short letter home."""
    one, two = rng.sample(people(), 2)
    slots = {
        name: rng.choice(read_words("stories.txt", name))
        for name in ("weather", "places", "foods", "feelings", "days")
    }
    slots["fact"] = rng.choice(some_fact(rng).text)
    lines = [capital(wording.format_map(slots)) for wording in wordings("letter")]
    chosen = sorted(rng.sample(range(len(lines)), rng.randint(4, 6)))
    return f"Dear {two},\n" + " ".join(lines[i] for i in chosen) + f"\nYour friend {one}"


KINDS: dict[Callable[[random.Random], str], float] = {
    small_talk: 0.6,
    favorites: 0.25,
    letter: 0.15,
}
