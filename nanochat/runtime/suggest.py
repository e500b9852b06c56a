"""`did you mean ...?` after a word that nobody knows, in one wording for the whole package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE_ENOUGH = 0.5  # of difflib's ratio: `--dept` finds `--depth`, `--zzzz` finds nothing


def suggestion(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """`; did you mean --depth?` for the known word closest to `word`, else `; ` and `otherwise`.

    Case, dashes and underscores make no difference. `otherwise`: by default the list of all known
    words.
    """
    spelled = {_plain(name): name for name in known}
    close = difflib.get_close_matches(_plain(word), list(spelled), 1, CLOSE_ENOUGH)
    if close:
        return f"; did you mean {spelled[close[0]]}?"
    return f"; {otherwise or 'use one of ' + ', '.join(spelled.values())}"


def _plain(word: str) -> str:
    return word.lstrip("-").replace("_", "-").casefold()
