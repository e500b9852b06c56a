"""Everyday talk between people: greetings, moods, favourite colors, jokes."""

from __future__ import annotations

import random
from collections.abc import Callable

from nanochat.dataset.embedded_world.entries import some_fact
from nanochat.dataset.embedded_world.grammar import capital
from nanochat.dataset.embedded_world.tables import read_sections, read_words

# What a chat model is trained on; its favorite color and what it can do belong to its persona.
TOPICS = ("hello", "thanks", "bye", "mood.sad", "mood.glad", "joke", "unknown", "learn")


def _names(rng: random.Random) -> tuple[str, str]:
    one, two = rng.sample(
        (*read_words("stories.txt", "names.she"), *read_words("stories.txt", "names.he")), 2
    )
    return one, two


def _pair(rng: random.Random, topic: str) -> tuple[str, str]:
    talk = read_sections("smalltalk.txt")
    return rng.choice(talk[f"{topic}.ask"]), rng.choice(talk[f"{topic}.reply"])


def small_talk(rng: random.Random) -> str:
    """A short meeting of two people, line by line."""
    one, two = _names(rng)
    talk = read_sections("smalltalk.txt")
    lines = []
    if rng.random() < 0.5:
        lines += [f"{one}: Hello, {two}!", f"{two}: Hi, {one}!"]
    for _ in range(rng.randint(2, 4)):
        if rng.random() < 0.5:
            said, *replies = rng.choice(talk["talk"]).split(" | ")
            reply = rng.choice(replies)
        elif rng.random() < 0.6:
            said, reply = _pair(rng, rng.choice(("color", "mood.sad", "mood.glad", "joke")))
        else:
            fact = some_fact(rng)
            said, reply = rng.choice(fact.ask), fact.reply
        lines += [f"{one}: {said}", f"{two}: {reply}"]
    if rng.random() < 0.4:
        lines += [f"{one}: Goodbye, {two}!", f"{two}: See you soon, {one}!"]
    return "\n".join(lines)


def favorites(rng: random.Random) -> str:
    """What two people like best, each in one of several ways."""
    names = _names(rng)
    drawn = {
        name: rng.sample(read_words("stories.txt", name), 2) for name in ("colors", "foods", "pets")
    }
    parts = []
    for name, color, food, pet in zip(
        names, drawn["colors"], drawn["foods"], drawn["pets"], strict=True
    ):
        parts.append(
            rng.choice(
                (
                    f'{name} said, "My favorite color is {color}, and my favorite food is {food}."',
                    f"My name is {name}. My favorite color is {color}. I like {food}, and I have "
                    f"a {pet}.",
                    f"The favorite color of {name} is {color}. {name} likes {food} and would "
                    f"like to have a {pet}.",
                    f"What is your favorite color, {name}? My favorite color is {color}, because "
                    f"my {pet} is {color}.",
                    f"My name is {name}. My favorite food is {food}. My favorite animal is the "
                    f"{pet}. "
                    f"My favorite color is {color}.",
                    f'{name} has a {color} {pet}. "My favorite color is {color}," says {name}.',
                )
            )
        )
    return " ".join(parts)


def letter(rng: random.Random) -> str:
    """A short letter home."""
    one, two = _names(rng)
    draw = {
        name: rng.choice(read_words("stories.txt", name))
        for name in ("weather", "places", "foods", "feelings", "days")
    }
    fact = some_fact(rng)
    lines = [
        f"Today it is {draw['weather']} here.",
        f"On {draw['days']} we went to the {draw['places']}.",
        f"We ate {draw['foods']} and I was {draw['feelings']}.",
        f"I learned something: {rng.choice(fact.text)}",
        "I hope you are well.",
        "Please write to me soon.",
        f"In the evening we sat by the fire and told stories about the {draw['places']}.",
        "I think of you every day.",
    ]
    chosen = sorted(rng.sample(range(len(lines)), rng.randint(4, 6)))
    return (
        f"Dear {two},\n"
        + " ".join(capital(lines[index]) for index in chosen)
        + f"\nYour friend {one}"
    )


KINDS: dict[Callable[[random.Random], str], float] = {
    small_talk: 0.6,
    favorites: 0.25,
    letter: 0.15,
}
