"""Secrets and people taken out of queries and texts, the same value always replaced by the same
stand-in.

It errs on the side of taking out: a number that only looks like a phone number costs nothing, a
phone number in the weights of a model does. Strings and comments are searched for everything, the
code around them for what no code contains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nanochat.sql.dialect_parser import TokenizedSQL, TokenType

# Columns whose numbers are people's, whatever they look like.
_PERSONAL = re.compile(
    r"phone|mobile|cell|msisdn|(^|_)(tel|fax|ssn|iban|tin|pin|nif|cpf)(_|$)|passport|card_?n|"
    r"password|passwd|secret|token|api_?key",
    re.IGNORECASE,
)
_SECRET_WORDS = r"(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|auth|bearer)"


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """What a kind of secret looks like, and its stand-in, with {} for its number."""

    kind: str
    pattern: re.Pattern[str]
    stand_in: str
    holds: Callable[[re.Match[str]], bool] = lambda match: True


def _luhn(match: re.Match[str]) -> bool:
    digits = [int(c) for c in match.group() if c.isdigit()]
    doubled = [2 * d - 9 * (d > 4) if i % 2 else d for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    """Enough digits, and neither a date, a time nor seconds since 1970."""
    text = match.group()
    digits = re.sub(r"\D", "", text)
    if not 7 <= len(digits) <= 15 or re.search(r"\d{4}-\d{2}-\d{2}|\d{2}\.\d{2}\.\d{4}", text):
        return False
    if text.startswith(("+", "00", "(")):
        return True
    if len(digits) != len(text):
        return len(digits) >= 9 or bool(re.fullmatch(r"\d{3}[-. ]\d{4}", text))
    is_time = digits[0] == "1" and len(digits) in (10, 13)
    is_date = re.match(r"(19|20)\d\d(0\d|1[0-2])[0-3]\d", digits) and len(digits) in (8, 10, 12, 14)
    return len(digits) >= 10 and not is_time and not is_date


def _is_random(match: re.Match[str]) -> bool:
    """A long word of letters and digits mixed, as keys are and names are not."""
    text = match.group()
    kinds = [re.search(kind, text) for kind in ("[a-z]", "[A-Z]", r"\d")]
    changes = len(re.findall(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|(?<=[a-z])(?=[A-Z])", text))
    return sum(map(bool, kinds)) >= 2 and bool(kinds[2]) and changes >= 4


_ANYWHERE = (
    _Pattern(
        kind="private keys",
        pattern=re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)", re.DOTALL
        ),
        stand_in="REDACTED-KEY-{}",
    ),
    _Pattern(
        kind="passwords in addresses",
        pattern=re.compile(r"(?<=://)[^\s/:@'\"]+:[^\s/@'\"]+(?=@)"),
        stand_in="user{0}:REDACTED-{0}",
    ),
    _Pattern(
        kind="e-mail addresses",
        pattern=re.compile(r"[\w.+-]+(?:@|%40)(?:[\w-]+\.)+[^\W\d_]{2,}(?!\w)", re.IGNORECASE),
        stand_in="person{}@example.com",
    ),
    _Pattern(
        kind="tokens",
        pattern=re.compile(
            r"\b(?:eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{30,}|"
            r"(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{12,}|"
            r"gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|xox[abeoprs]-[\w-]{10,}|"
            r"hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}|ya29\.[\w-]{20,}|dop_v1_\w{20,}|"
            r"SG\.[\w-]{15,}\.[\w-]{15,})"
        ),
        stand_in="REDACTED-TOKEN-{}",
    ),
    _Pattern(
        kind="tokens",
        pattern=re.compile(
            rf"(?<![A-Za-z]){_SECRET_WORDS}['\"]?\s*[:=]\s*['\"]?(?!REDACTED)[^\s'\",;&)]{{6,}}|"
            rf"\b[Bb]earer\s+(?!REDACTED)[\w.~+/-]{{8,}}"
        ),
        stand_in="REDACTED-TOKEN-{}",
    ),
    _Pattern(
        kind="ids",
        pattern=re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
        stand_in="00000000-0000-4000-8000-{:012d}",
        holds=lambda match: not match.group().startswith("00000000-0000-4000-8000-"),
    ),
    _Pattern(
        kind="tokens",
        pattern=re.compile(r"\b[0-9a-fA-F]{32,}\b"),
        stand_in="REDACTED-TOKEN-{}",
    ),
    _Pattern(
        kind="tokens",
        pattern=re.compile(r"(?<![\w/.-])[A-Za-z0-9_+/-]{24,}={0,2}(?![\w/.-])"),
        stand_in="REDACTED-TOKEN-{}",
        holds=_is_random,
    ),
)
_IN_TEXT = (
    _Pattern(
        kind="card numbers",
        pattern=re.compile(r"(?<![\d.+-])\d(?:[ -]?\d){14,15}(?![\d.-])"),
        stand_in="REDACTED-CARD-{}",
        holds=_luhn,
    ),
    _Pattern(
        kind="bank accounts",
        pattern=re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
        stand_in="REDACTED-ACCOUNT-{}",
    ),
    _Pattern(
        kind="phone numbers",
        pattern=re.compile(
            r"(?<![\w.:/+-])(?:\+|00)?\(?\d(?:[ ()./-]{0,2}\d){6,14}(?![\w:]|[./-]\d)"
        ),
        stand_in="+00 000 {:07d}",
        holds=lambda match: _is_phone(match) and not match.group().startswith("+00 000 "),
    ),
    _Pattern(
        kind="network addresses",
        pattern=re.compile(
            r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.]*\w)"
        ),
        stand_in="192.0.2.{}",
        holds=lambda match: not match.group().startswith(("192.0.2.", "127.", "0.0.")),
    ),
)
_STAND_IN = re.compile(
    r"person\d+@example\.com|REDACTED-(?:TOKEN|KEY|CARD|ACCOUNT)-\d+|user\d+:REDACTED-\d+|"
    r"Person \d+|private\d+"
)


class SQLRedactor:
    """Replaces what looks like a secret or a person. names: words of people, to be replaced
    wherever they stand alone.

    counts: what was replaced -> how often. The same value gets the same stand-in everywhere.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self._stand_ins: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()
        known = sorted({name.strip() for name in names if name.strip()}, key=len, reverse=True)
        self._names = (
            re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, known))})(?!\w)", re.IGNORECASE)
            if known
            else None
        )

    def text(self, text: str) -> str:
        """Prose, or the inside of a string: everything is searched for."""
        for pattern in (*_ANYWHERE, *_IN_TEXT):
            text = self._replace(pattern, text)
        return self._without_names(text)

    def query(self, statement: TokenizedSQL) -> str:
        """The words of a statement, without comments. Strings are searched for everything, numbers
        beside columns of people are replaced, the code around them keeps its structure.
        """
        parts: list[str] = []
        end: int | None = None
        personal = False
        for token in statement.tokens:
            piece = statement.source[token.start : token.end + 1]
            if end is not None and token.start > end:
                parts.append(" ")
            end = token.end + 1
            if token.token_type == TokenType.NUMBER:
                parts.append(self._number(piece) if personal or len(piece) >= 15 else piece)
                continue
            if token.token_type in (TokenType.VAR, TokenType.IDENTIFIER):
                personal = bool(_PERSONAL.search(token.text))
                parts.append(self._code(piece))
            elif _is_string(piece):
                parts.append(self._string(piece, personal))
            else:
                # AND, OR and the like begin another condition
                personal = personal and token.text.upper() not in _CONDITION_ENDS
                parts.append(piece)
        return self._across("".join(parts))

    def _across(self, text: str) -> str:
        """What begins in one token and ends in another, such as an address without quotes."""
        for pattern in _ANYWHERE[:4]:
            text = self._replace(pattern, text)
        return text

    def _code(self, piece: str) -> str:
        for pattern in _ANYWHERE[:4]:
            piece = self._replace(pattern, piece)
        return self._without_names(piece) if piece[:1] in '"`[' else piece

    def _string(self, piece: str, personal: bool) -> str:
        quote = re.match(r"[A-Za-z]{0,2}('''|\"\"\"|'|\"|\$\w*\$)", piece)
        opening = quote.end() if quote else 1
        closing = len(quote.group(1)) if quote else 1
        inside = piece[opening : len(piece) - closing]
        if personal and inside.strip("%") and not _STAND_IN.search(inside):
            marks = re.fullmatch(r"(%*)(.*?)(%*)", inside, re.DOTALL)
            assert marks is not None  # whatever stands between two quotes
            changed = marks[1] + self._stand_in("personal values", "private{}", marks[2]) + marks[3]
        else:
            changed = self.text(inside)
        return piece[:opening] + changed + piece[len(piece) - closing :]

    def _number(self, piece: str) -> str:
        digits = re.sub(r"\D", "", piece)
        if len(digits) < 6 or re.fullmatch(r"90\d{5}", piece):
            return piece
        return self._stand_in("personal numbers", "90{:05d}", piece)

    def _without_names(self, text: str) -> str:
        if self._names is None:
            return text
        return self._names.sub(lambda m: self._stand_in("names", "Person {}", m.group()), text)

    def _replace(self, pattern: _Pattern, text: str) -> str:
        def changed(match: re.Match[str]) -> str:
            found = match.group()
            if _STAND_IN.fullmatch(found) or not pattern.holds(match):
                return found
            return self._stand_in(pattern.kind, pattern.stand_in, found)

        return pattern.pattern.sub(changed, text)

    def _stand_in(self, kind: str, form: str, value: str) -> str:
        self.counts[kind] += 1
        key = (form, value.casefold())
        if key not in self._stand_ins:
            self._numbers[form] += 1
            self._stand_ins[key] = form.format(self._numbers[form])
        return self._stand_ins[key]


_CONDITION_ENDS = frozenset("AND OR WHERE GROUP ORDER HAVING ON SELECT LIMIT THEN ELSE".split())


def _is_string(piece: str) -> bool:
    return bool(re.match(r"[A-Za-z]{0,2}['\"$]", piece)) and piece[-1:] in "'\"$" and len(piece) > 1
