"""Documents that teach which letters words are made of, and to copy a word never seen before.

Quotation marks never begin a line or follow a bracket here: a quote at the start of `"lantern`
would join the first letters into tokens of its own, and the word would no longer consist of the
pieces it has elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from nanochat.dataset.embedded_world.grammar import article, capital, joined
from nanochat.dataset.embedded_world.split import held_out_pair
from nanochat.dataset.embedded_world.tables import read_words
from nanochat.dataset.embedded_world.words import made_up_word, spelled, training_word

_SENTENCES = (
    "The word {w} is spelled {s}.",
    "The word {w} is spelled {s}.",
    "{W} is spelled {s}.",
    'The word "{w}" is spelled {s}.',
    "To write {w}, write {s}.",
    "Letter by letter, {w} is {s}.",
    "How do you spell {w}? {s}",
    'How do you spell "{w}"? {s}',
    "Spell {w}: {s}",
    'Spell "{w}": {s}',
    "Spell the word {w}: {s}",
    "Spell the word {w}.\n{s}",
    "How do you spell {w}?\n{s}",
    "Spell {w}.\n{s}",
    'Spell the word "{w}".\n{s}',
    "What are the letters of {w}?\n{s}",
    "The letters {s} make the word {w}.",
    "{s} spells {w}.",
    "The letters of {w} are {s}.",
    "She wrote {w} on the board: {s}.",
)
_HEADINGS = (
    "Spelling list",
    "Words to learn",
    "Spelling",
    "Today we spell",
    "Letters of words",
    "Word list",
)


def spelling_list(rng: random.Random) -> str:
    """`lantern: l-a-n-t-e-r-n`, one word to a line."""
    words = [training_word(rng) for _ in range(rng.randint(6, 16))]
    style = rng.random()
    if style < 0.35:
        lines = [f"{word}: {spelled(word)}" for word in words]
    elif (
        style < 0.6
        # after a blank, as in a sentence, a word has other pieces than at the start of a line
    ):
        lines = [f"{number}. {word}: {spelled(word)}" for number, word in enumerate(words, 1)]
    else:
        lines = [f"* {word}: {spelled(word)}" for word in words]
    return "\n".join([rng.choice(_HEADINGS) + ":", *lines] if rng.random() < 0.3 else lines)


def spelling_sentences(rng: random.Random) -> str:
    """Sentences that spell words, the word bare or in quotes."""
    sentences = []
    for _ in range(rng.randint(5, 11)):
        word = training_word(rng)
        sentences.append(rng.choice(_SENTENCES).format(w=word, W=capital(word), s=spelled(word)))
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
        times = f"{count} time" + ("" if count == 1 else "s")
        lines.append(
            rng.choice(
                (
                    f"{spelled(word)} spells {word}. It begins with {word[0]} and ends with "
                    f"{word[-1]}.",
                    f"The word {word} has {len(word)} letters: {spelled(word)}.",
                    f"The letters of {word} are {spelled(word)}. The letter {letter} appears "
                    f"{times}.",
                    f'How many letters {letter} are in "{word}"? {spelled(word)}: {count}.',
                    f"How many {letter} are in {word}? {spelled(word)}: {count}.",
                )
            )
        )
    return "\n".join(lines)


def reversed_words(rng: random.Random) -> str:
    """Words from their letters: the other direction of spelling."""
    words = [training_word(rng) for _ in range(rng.randint(5, 12))]
    return "\n".join(f"{spelled(word)} spells {word}." for word in words)


def repeated_words(rng: random.Random) -> str:
    """New names and words that come back: practice in copying what was read a moment ago."""
    word, other = made_up_word(rng), made_up_word(rng)
    name = rng.choice(read_words("stories.txt", rng.choice(("names.she", "names.he"))))
    pet, place, food = (
        rng.choice(read_words("stories.txt", section)) for section in ("pets", "places", "foods")
    )
    called, second = capital(word), capital(other)
    return rng.choice(
        (
            f'{name} learned the new words "{word}" and "{other}". First {name} wrote "{word}" '
            f"and then {name} wrote "
            f'"{other}". Now {name} knows both: {word} and {other}.',
            f"Once there was {article(pet)} called {called}. {called} lived near the {place} "
            f"with {article(pet)} "
            f"called {second}. {called} liked {food}, but {second} did not. In the end {called} "
            f"and {second} shared "
            f"everything.",
            f"The town of {called} lies near the {place}. Next to {called} lies {second}. A road "
            f"goes from {called} to "
            f"{second}. In {second} they grow {food}, and in {called} they sell it.",
            f'The secret word is "{word}". Say the secret word: {word}. Write the secret word: '
            f'"{word}". '
            f'The old secret word was "{other}". Say the old secret word: {other}.',
            f"Copy the words.\n{word} {other}\n{word} {other}",
            f"A word and its letters.\n{word}: {spelled(word)}\n{spelled(word)}: {word}\n{word}: "
            f"{spelled(word)}",
        )
    )


def repeated_numbers(rng: random.Random) -> str:
    """Numbers that come back, and sums in words that are written with signs: practice in copying
    numbers.
    """
    lines = []
    for _ in range(rng.randint(4, 8)):
        left, right = operands(rng)
        word, sign, small = rng.choice(
            (
                ("plus", "+", "sum"),
                ("minus", "-", "difference"),
                ("times", "*", "product"),
                ("divided by", "/", "result"),
            )
        )
        lines.append(
            rng.choice(
                (
                    f"{left} {word} {right} is written {left}{sign}{right}.",
                    f"{capital(article(small))} with {left} and {right}: {left}{sign}{right}",
                    f"{left} {sign} {right} can be written {left}{sign}{right}.",
                    f"The numbers are {left} and {right}. Again: {left} and {right}.",
                    f"Write {left} {word} {right}: {left}{sign}{right}",
                    f"What is {left} {word} {right}? First write it with a sign.\n"
                    f"{left}{sign}{right}",
                    f"Write {left} {sign} {right} again.\n{left}{sign}{right}",
                )
            )
        )
    return "\n".join(lines)


def operands(rng: random.Random) -> tuple[int, int]:
    """Two numbers of one to three digits that are not held out together."""
    while True:
        left, right = (rng.randrange(1, 10 ** rng.choice((1, 2, 2, 3))) for _ in range(2))
        if not held_out_pair(left, right):
            return left, right


def alphabet(rng: random.Random) -> str:
    """The alphabet and the places of letters in it."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    at = rng.randrange(1, 25)
    facts = [
        f"The letter after {letters[at]} is {letters[at + 1]}.",
        f"The letter before {letters[at]} is {letters[at - 1]}.",
        f"The letters of the alphabet are {joined(list(letters))}.",
        "The vowels are a, e, i, o and u.",
        f"Letter number {at + 1} of the alphabet is {letters[at]}.",
        f"{letters[at]} is {article('vowel' if letters[at] in 'aeiou' else 'consonant')}.",
        "There are 26 letters in the English alphabet.",
        spelled(letters),
    ]
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
