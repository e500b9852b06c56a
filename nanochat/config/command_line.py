"""Words of a command line, sorted into fields; every problem is noted, none stops the reading.

Flags are accepted with dashes or underscores, as `--flag value` or `--flag=value`; booleans as
`--fp8`, `--fp8=True`, `--fp8 False` or `--no-fp8`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nanochat.config.fields import Field
from nanochat.config.kinds import FALSE, TRUE
from nanochat.runtime.suggest import suggestion

PRINTED_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"  # what web pages make of --


class CommandLine:
    """`words`: field name -> its words; `config_file`: what --config names; `problems`: lines.

    `gone`: name of a field that older versions had -> what to say of it.
    """

    def __init__(self, fields: Sequence[Field], argv: Sequence[str], gone: Mapping[str, str] = {}):
        self.gone = {dashed("--" + name): said for name, said in gone.items()}
        self.flags = {flag: f for f in fields for flag in f.spellings}
        self.negated = {
            "--no-" + f.flag[2:]: f for f in fields if f.spellings and f.kind.scalar is bool
        }
        self.places = [f for f in fields if f.positional]  # not filled yet
        self.words: dict[str, list[str]] = {}
        self.config_file: str | None = None
        self.problems: list[str] = []
        self._left = list(argv)
        while self._left:
            self._read(self._left.pop(0))

    def _read(self, word: str) -> None:
        name, equals, value = word.partition("=")
        name = dashed(name)
        given = value if equals else None
        if name == "--config":
            self._read_config(given)
        elif name in self.flags:
            self._read_flag(self.flags[name], word, given)
        elif name in self.negated and not equals:
            self.words[self.negated[name].name] = ["False"]
        elif word.startswith("-"):
            self._unknown_flag(word, name, given)
        elif self.places:
            field = self.places[0] if self.places[0].kind.container else self.places.pop(0)
            self.words.setdefault(field.name, []).append(word)
        else:
            self.problems.append(f"{word}: unexpected word{self._guess(word)}")

    def _read_config(self, given: str | None) -> None:
        if self.config_file is not None:
            self.problems.append("--config: given twice; put the settings into one file")
        if given is None:
            given = self._left.pop(0) if self._left else ""
        self.config_file = given

    def _read_flag(self, field: Field, word: str, given: str | None) -> None:
        if given is not None:
            taken = [given]
        elif field.kind.scalar is bool:
            is_value = self._left and self._left[0].lower() in TRUE | FALSE
            taken = [self._left.pop(0) if is_value else "True"]
        else:
            taken = self._values(many=field.kind.container is not None)
        if not taken:
            self.problems.append(f"{word}: needs a value ({field.kind}){field.example()}")
        elif field.kind.container:
            self.words.setdefault(field.name, []).extend(taken)  # --data a --data b means both
        else:
            self.words[field.name] = taken

    def _values(self, many: bool) -> list[str]:
        """The next word that is no flag, or all up to the next flag."""
        taken: list[str] = []
        while self._left and not self._is_flag(self._left[0]) and (many or not taken):
            taken.append(self._left.pop(0))
        return taken

    def _is_flag(self, word: str) -> bool:
        return word.startswith("--") or word.partition("=")[0] in self.flags

    def _unknown_flag(self, word: str, name: str, given: str | None) -> None:
        if given is None and not self.places:
            self._values(many=False)  # its value, so that this is not reported a second time
        if name in self.gone:
            self.problems.append(f"{word}: {self.gone[name]}")
            return
        if name[:2] in self.flags:
            fix = f"; write {name[:2]} {word[2:]}"
        else:
            fix = suggestion(name, self.flags, "see --help")
        self.problems.append(f"{word}: unknown flag{fix}")

    def _guess(self, word: str) -> str:
        bare = word.lstrip(PRINTED_DASHES)
        name = bare.partition("=")[0]
        for spelling in ("--" + name, "-" + name):
            if dashed(spelling) in self.flags and (bare != word or "=" in bare):
                return f"; write {spelling}{bare[len(name) :]}"
        return "; see --help"


def dashed(flag: str) -> str:
    return "--" + flag[2:].replace("_", "-") if flag.startswith("--") else flag
