"""Small rules of English that the templates need: articles, plurals, lists, numbers in words."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
)
_IRREGULAR = {
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "mouse": "mice",
    "wolf": "wolves",
    "goose": "geese",
}


def article(noun: str) -> str:
    """`noun` with "a" or "an"; words such as "unicorn" and "hour" sound unlike they look."""
    vowel = noun[0].lower() in "aeiou" and not noun.startswith(("uni", "use", "eu", "one"))
    return ("an " if vowel or noun.startswith("hour") else "a ") + noun


def plural(noun: str) -> str:
    """Plural of a noun of the world's tables."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def capital(text: str) -> str:
    """`text` with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]


def joined(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def in_words(number: int) -> str:
    """A number from 0 to 999 in English words."""
    if number < 20:
        return _UNITS[number]
    if number < 100:
        tens, units = divmod(number, 10)
        return _TENS[tens] + ("-" + _UNITS[units] if units else "")
    hundreds, rest = divmod(number, 100)
    return _UNITS[hundreds] + " hundred" + (" and " + in_words(rest) if rest else "")
