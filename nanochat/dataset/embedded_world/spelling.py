"""Documents that teach which letters words are made of, and to copy a word never seen before."""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from nanochat.dataset.embedded_world.grammar import article, capital, joined
from nanochat.dataset.embedded_world.split import held_out_pair
from nanochat.dataset.embedded_world.tables import people, read_words, say, wordings
from nanochat.dataset.embedded_world.words import made_up_word, spelled, training_word

_OPERATIONS = (
    ("plus", "+", "sum"),
    ("minus", "-", "difference"),
    ("times", "*", "product"),
    ("divided by", "/", "result"),
)


def spelling_list(rng: random.Random) -> str:
    """`lantern: l-a-n-t-e-r-n`, one word to a line."""
    words = [training_word(rng) for _ in range(rng.randint(6, 16))]
    style = rng.random()
    # After a blank, as in a sentence, a word consists of other pieces than at the start of a line.
    marks = [""] * len(words) if style < 0.35 else ["* "] * len(words)
    if 0.35 <= style < 0.6:
        marks = [f"{number}. " for number in range(1, len(words) + 1)]
    lines = [f"{mark}{word}: {spelled(word)}" for mark, word in zip(marks, words, strict=True)]
    if rng.random() < 0.3:
        lines.insert(0, say(rng, "spelling.heading") + ":")
    return "\n".join(lines)


def spelling_sentences(rng: random.Random) -> str:
    """Sentences that spell words, the word bare or in quotes."""
    sentences = []
    for _ in range(rng.randint(5, 11)):
        word = training_word(rng)
        sentences.append(say(rng, "spelling", w=word, W=capital(word), s=spelled(word)))
    return "\n".join(sentences)


def letters_of_words(rng: random.Random) -> str:
    """First and last letters, lengths, and how often a letter appears, always from the spelled
    word.
    """
    lines = []
    for _ in range(rng.randint(3, 6)):
        word = training_word(rng, name=0)
        letter = rng.choice(word)
        count = word.count(letter)
        slots = {
            "w": word,
            "s": spelled(word),
            "first": word[0],
            "last": word[-1],
            "length": len(word),
            "l": letter,
            "count": count,
            "times": f"{count} time" + ("" if count == 1 else "s"),
        }
        lines.append(say(rng, "letters", **slots))
    return "\n".join(lines)


def reversed_words(rng: random.Random) -> str:
    """Words from their letters: the other direction of spelling."""
    words = [training_word(rng) for _ in range(rng.randint(5, 12))]
    return "\n".join(f"{spelled(word)} spells {word}." for word in words)


def repeated_words(rng: random.Random) -> str:
    """New names and words that come back: practice in copying what was read a moment ago."""
    word, other = made_up_word(rng), made_up_word(rng)
    name = rng.choice(people(rng.choice(("she", "he"))))
    pet, place, food = (
        rng.choice(read_words("stories.txt", section)) for section in ("pets", "places", "foods")
    )
    slots = {
        "w": word,
        "v": other,
        "W": capital(word),
        "V": capital(other),
        "s": spelled(word),
        "name": name,
        "a_pet": article(pet),
        "place": place,
        "food": food,
    }
    return say(rng, "copying.words", **slots)


def repeated_numbers(rng: random.Random) -> str:
    """Numbers that come back, and sums in words that are written with signs: practice in copying
    numbers.
    """
    lines = []
    for _ in range(rng.randint(4, 8)):
        x, y = operands(rng)
        word, sign, result = rng.choice(_OPERATIONS)
        slots = {"x": x, "y": y, "word": word, "sign": sign, "A_result": capital(article(result))}
        lines.append(say(rng, "copying.numbers", **slots))
    return "\n".join(lines)


def operands(rng: random.Random) -> tuple[int, int]:
    """Two numbers of one to three digits that are not held out together."""
    while True:
        left, right = (rng.randrange(1, 10 ** rng.choice((1, 2, 2, 3))) for _ in range(2))
        if not held_out_pair(left, right):
            return left, right


def alphabet(rng: random.Random) -> str:
    """The alphabet and the places of letters in it."""
    letters = string.ascii_lowercase
    at = rng.randrange(1, 25)
    slots = {
        "l": letters[at],
        "next": letters[at + 1],
        "previous": letters[at - 1],
        "place": at + 1,
        "a_kind": article("vowel" if letters[at] in "aeiou" else "consonant"),
        "all": joined(list(letters)),
        "s": spelled(letters),
    }
    facts = [wording.format_map(slots) for wording in wordings("alphabet")]
    rng.shuffle(facts)
    return " ".join(facts[: rng.randint(3, 6)])


KINDS: dict[Callable[[random.Random], str], float] = {
    spelling_list: 0.42,
    spelling_sentences: 0.44,
    letters_of_words: 0.08,
    reversed_words: 0.05,
    alphabet: 0.01,
}
COPY_KINDS: dict[Callable[[random.Random], str], float] = {
    repeated_words: 0.6,
    repeated_numbers: 0.4,
}
