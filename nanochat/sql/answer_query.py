"""The query in a model's answer: what it wrote around it left out."""

from __future__ import annotations

import re

_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:\n[ \t]*```|```|\Z)", re.DOTALL)
_START = re.compile(
    r"(?<![\w.])(?:SELECT|WITH|INSERT|UPDATE|DELETE|DROP|CREATE|ALTER|TRUNCATE|ATTACH|DETACH|COPY|"
    r"PRAGMA|EXPLAIN|SHOW|DESCRIBE|VACUUM|SET|USE|CALL|GRANT|REPLACE|MERGE|INSTALL|LOAD|EXPORT|"
    r"IMPORT|OPTIMIZE|RENAME|SYSTEM|KILL)\b",
    re.IGNORECASE,
)
# What may follow the first word, so that "with pleasure" is no query.
_QUERY = re.compile(
    r"(?i:SELECT)[\s*('\"`]|(?i:WITH\s+(?:RECURSIVE\s+)?[\w\"`]+\s*(?:\([^()]*\)\s*)?AS\b)|"
    r"(?!SELECT|WITH)[A-Z]+\b"
)
_SPECIAL = re.compile(r"<\|[a-z_]+\|>")


def answer_query(text: str) -> str:
    """The first query of an answer: of its first fenced block of SQL, else from the first word that
    begins a statement to a semicolon or a blank line. Empty where there is none.
    """
    text = _SPECIAL.sub("", text.replace("\r\n", "\n").replace("\ufeff", ""))
    blocks = [(m.group(1).lower(), m.group(2)) for m in _FENCE.finditer(text)]
    named = [block for language, block in blocks if language in ("sql", "sqlite", "postgresql")]
    for block in [*named, *(block for language, block in blocks if not language)]:
        if _START.search(block):
            return block.strip()
    return _bare(text)


def _bare(text: str) -> str:
    starts = list(_START.finditer(text))
    # A word in capitals at the beginning of a line is meant; in prose it may be English.
    meant = [s for s in starts if _begins_line(text, s.start())]
    for start in (*meant, *(s for s in starts if s.group().isupper())):
        rest = text[start.start() :]
        if _QUERY.match(rest):
            return _until_end(rest)
    return ""


def _begins_line(text: str, place: int) -> bool:
    return not text[text.rfind("\n", 0, place) + 1 : place].strip(" \t>*-`(")


def _until_end(text: str) -> str:
    """Up to a semicolon outside of quotes, or a blank line; a statement that follows at once
    stays: two are refused, not one of them chosen.
    """
    quote, place = "", 0
    while place < len(text):
        letter = text[place]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`" and (letter != "`" or text.find("`", place + 1) > 0):
            quote = letter
        elif text.startswith("\n\n", place):
            return text[:place].strip()
        elif letter == ";":
            following = text[place + 1 :].lstrip()
            if not _START.match(following):
                return text[: place + 1].strip()
        place += 1
    return text.strip()
