"""The supply of words for spelling, counting letters and copying: real ones, and made-up ones
without end.

A word that a model has never seen reaches it as a few pieces. To spell it, the model must know the
letters of each piece, so training needs many different words made of the same pieces: real words,
words blended from two real ones, and words built from syllables.
"""

from __future__ import annotations

import functools
import random
import re

from nanochat.dataset.embedded_world.facts import all_facts, phrases
from nanochat.dataset.embedded_world.grammar import in_words
from nanochat.dataset.embedded_world.split import held_out_word
from nanochat.dataset.embedded_world.tables import people, read_sections, read_words


def _spellable(word: str) -> bool:
    return len(word) > 2 and word.isascii() and word.isalpha()


def _template_words() -> list[str]:
    """The words of all stories, wordings and small talk, without the names of slots."""
    sections = [*phrases().values()]
    for name in ("stories.txt", "smalltalk.txt", "phrases_skills.txt"):
        sections += [
            lines for title, lines in read_sections(name).items() if not title.startswith("names.")
        ]
    text = " ".join(line for lines in sections for line in lines)
    return re.findall(r"(?<![\w'])[a-z]+(?![\w'])", re.sub(r"\{[^}]*\}", " ", text))


@functools.cache
def world_words() -> tuple[str, ...]:
    """Single lower-case words of the fact tables, wordings and stories: always in training, never
    in the exam.
    """
    found = [word for fact in all_facts() for word in f"{fact.subject} {fact.answer}".split()]
    found += [word for number in range(21) for word in in_words(number).split()]
    found += [*_template_words(), *read_words("words.txt", "text")]
    return tuple(dict.fromkeys(word for word in found if _spellable(word) and word.islower()))


@functools.cache
def world_names() -> tuple[str, ...]:
    """Single capitalised names of the world: people, countries, capitals, planets, days and
    months."""
    found = [*people()]
    found += [word for fact in all_facts() for word in f"{fact.subject} {fact.answer}".split()]
    return tuple(dict.fromkeys(name for name in found if _spellable(name) and name.istitle()))


@functools.cache
def real_words(held_out: bool = False) -> tuple[str, ...]:
    """The real words of one side of the split. The exam has only words that the world itself never
    uses.
    """
    listed = read_words("words.txt", "spelling")
    if held_out:
        used = {word.lower() for word in (*world_words(), *world_names())}
        return tuple(word for word in listed if held_out_word(word) and word not in used)
    return tuple(
        dict.fromkeys((*world_words(), *(word for word in listed if not held_out_word(word))))
    )


@functools.cache
def _all_real() -> frozenset[str]:
    return frozenset((*read_words("words.txt", "spelling"), *world_words()))


@functools.cache
def _unwanted() -> re.Pattern[str]:
    return re.compile("|".join(read_words("words.txt", "unwanted")))


@functools.cache
def _pieces(section: str) -> tuple[str, ...]:
    """Beginnings, middles and ends of syllables, the frequent ones several times."""
    return tuple(" ".join(read_sections("words.txt")[section]).split())


def _syllables(rng: random.Random) -> str:
    def draw(section: str) -> str:
        return rng.choice(_pieces(section))

    word = draw("onsets") + draw("vowels")
    if rng.random() < 0.6:
        word += draw("codas")
    if rng.random() < 0.45:
        word += draw("onsets") + draw("vowels")
        if rng.random() < 0.5:
            word += draw("codas")
    return word + (draw("endings") if rng.random() < 0.5 else "")


def _blend(rng: random.Random) -> str:
    """The beginning of one real word and the end of another: the pieces of unseen words are mostly
    of this kind.
    """
    words = real_words()
    first, second = rng.choice(words), rng.choice(words)
    return (
        first[: rng.randint(2, max(2, len(first) - 1))]
        + second[rng.randint(1, max(1, len(second) - 2)) :]
    )


def _compound(rng: random.Random) -> str:
    """A whole real word with another word or an ending: so that the pieces that are whole words are
    spelled, too.
    """
    words = real_words()
    second = rng.choice(_pieces("endings")) if rng.random() < 0.5 else rng.choice(words)
    return (
        rng.choice(words) + second
        if rng.random() < 0.7
        else rng.choice(_pieces("onsets")) + rng.choice(words)
    )


_BUILDERS = (_blend, _blend, _blend, _syllables, _syllables, _compound)


def made_up_word(rng: random.Random, held_out: bool = False) -> str:
    """A pronounceable word of 4 to 11 letters that is no real word of the lists, on the wanted side
    of the split.
    """
    while True:
        word = rng.choice(_BUILDERS)(rng)
        if not 4 <= len(word) <= 11 or held_out_word(word) != held_out or word in _all_real():
            continue
        if not _unwanted().search(word):
            return word


def training_word(rng: random.Random, made_up: float = 0.55, name: float = 0.06) -> str:
    """A word to train spelling with: made up, a capitalised name, or real, with these shares."""
    draw = rng.random()
    if draw < made_up:
        return made_up_word(rng)
    return rng.choice(world_names()) if draw < made_up + name else rng.choice(real_words())


def exam_word(rng: random.Random) -> str:
    """A word that no training text contains: as often real as made up."""
    return (
        rng.choice(real_words(held_out=True))
        if rng.random() < 0.5
        else made_up_word(rng, held_out=True)
    )


def spelled(word: str) -> str:
    """`l-a-n-t-e-r-n`: the one canonical spelling. After a hyphen each letter is a token of its
    own.
    """
    return "-".join(word)
