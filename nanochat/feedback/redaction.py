"""Personal numbers and secrets in texts that leave the database, replaced by what they were.

Patterns, not understanding: names and addresses of people stay, so whoever exports still has to
read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
PEM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
KNOWN_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic
    r"|nc-[A-Za-z0-9_-]{20,}"  # of this server
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|hf_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[A-Za-z0-9_-]{30,}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r")"
)
NAMED_SECRETS = re.compile(
    r"(?i)\b((?:api[_ -]?key|access[_ -]?token|auth[_ -]?token|secret(?:[_ -]?key)?|password|passwd"
    r"|bearer)\b[\"']?\s*(?:[:=]|\bis\b)?\s*[\"']?)(?=[^\s\"']*\d)([^\s\"',;]{6,})"
)
# a long word of letters and digits without pattern: digests, tokens, keys in base64
LONG_WORD = re.compile(r"(?<![\w/+-])[A-Za-z0-9_/+-]{32,}={0,2}(?![\w/+-])")
DIGITS = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ()/.-]{0,2}\d){7,18}(?!\w)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
AMERICAN = re.compile(r"1?[ .-]?\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}")
DATE = re.compile(r"\d{4}([-/. ])\d{1,2}\1\d{1,2}(\D.*)?|\d{1,2}([-/. ])\d{1,2}\3\d{4}(\D.*)?")


@dataclass(kw_only=True)
class Redactor:
    """Replaces, and counts what it has replaced."""

    counts: Counter[str] = field(default_factory=Counter)

    def redact(self, text: str) -> str:
        text = self._each(PEM, text, "key")
        text = self._each(KNOWN_KEYS, text, "key")
        text = NAMED_SECRETS.sub(lambda match: match.group(1) + self._mark("key"), text)
        text = self._each(EMAIL, text, "e-mail")
        text = self._each(IBAN, text, "account", lambda found: found.count(" ") or len(found) > 14)
        text = self._each(LONG_WORD, text, "key", looks_random)
        return DIGITS.sub(self._number, text)

    def _each(
        self,
        pattern: re.Pattern[str],
        text: str,
        kind: str,
        applies: Callable[[str], object] = lambda found: True,
    ) -> str:
        return pattern.sub(
            lambda match: self._mark(kind) if applies(match.group()) else match.group(), text
        )

    def _mark(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"[{kind}]"

    def _number(self, match: re.Match[str]) -> str:
        found = match.group()
        if is_card(found):
            return self._mark("card")
        return self._mark("phone") if is_phone(found) else found


def looks_random(word: str) -> bool:
    """Of letters and digits mixed, as keys and digests are and words and paths are not."""
    digits = sum(character.isdigit() for character in word)
    letters = sum(character.isalpha() for character in word)
    return digits >= 4 and letters >= 4 and word.count("/") <= len(word) // 12


def is_card(text: str) -> bool:
    """13 to 19 digits whose check digit is right (Luhn, ISO/IEC 7812)."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def is_phone(text: str) -> bool:
    """8 to 15 digits written as people write telephone numbers: with a country code, a leading
    zero, or in American groups. Dates and plain numbers are none.
    """
    digits = sum(character.isdigit() for character in text)
    if not 8 <= digits <= 15 or DATE.fullmatch(text):
        return False
    return text.startswith(("+", "0", "(0", "(+")) or bool(AMERICAN.fullmatch(text))
