"""A persona: who the model says it is, read from a small YAML file and checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nanochat.runtime.base_dir import expanded
from nanochat.runtime.errors import reason

_FIELDS = ("name", "maker", "traits", "facts")


@dataclass(frozen=True, kw_only=True)
class PersonaFact:
    """Something the persona knows about itself: questions that ask for it, the answer, what it must
    contain.
    """

    ask: tuple[str, ...]
    answer: str
    accept: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Persona:
    """name and maker; traits as adjectives; facts."""

    name: str
    maker: str
    traits: tuple[str, ...] = ()
    facts: tuple[PersonaFact, ...] = ()


def load_persona(path: Path | str | None = None) -> Persona:
    """Read a persona file; without a path the one that comes with the package. ValueError with
    every problem.
    """
    default = Path(__file__).with_name("persona_default.yaml")
    file = default if path is None else expanded(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"--persona={file}: cannot be read ({error.strerror}); give an existing YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"--persona={file}: not valid YAML ({reason(error)})") from None
    return parse_persona(content, str(file))


def parse_persona(content: Any, where: str = "persona") -> Persona:
    """A persona from parsed YAML. ValueError naming `where` and every problem."""
    if not isinstance(content, dict):
        raise ValueError(
            f"{where}: must hold `name: ...`, `maker: ...`, `traits: [...]` and `facts: ...`"
        )
    problems = [
        f"{key!r} is unknown; there are {', '.join(_FIELDS)}"
        for key in content
        if key not in _FIELDS
    ]
    for key in ("name", "maker"):
        if not _is_phrase(content.get(key)):
            problems.append(f"`{key}` must be given, as one line of text")
    traits = content.get("traits") or []
    if not isinstance(traits, list) or not all(map(_is_phrase, traits)):
        problems.append("`traits` must be a list of words, such as [curious, friendly]")
    facts = []
    for number, entry in enumerate(_fact_entries(content.get("facts"), problems), 1):
        try:
            facts.append(_fact(entry))
        except ValueError as error:
            problems.append(f"fact {number}: {error}")
    asked = Counter(question.casefold() for fact in facts for question in fact.ask)
    problems += [f"the question {q!r} is there twice" for q, times in asked.items() if times > 1]
    if problems:
        raise ValueError("\n".join(f"{where}: {problem}" for problem in problems))
    return Persona(
        name=content["name"].strip(),
        maker=content["maker"].strip(),
        traits=tuple(trait.strip() for trait in traits),
        facts=tuple(facts),
    )


def as_persona(persona: Persona | Path | str | None) -> Persona:
    """The persona itself, or the one of a file, or the default one."""
    return persona if isinstance(persona, Persona) else load_persona(persona or None)


def _is_phrase(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\n" not in value.strip()


def _fact_entries(facts: Any, problems: list[str]) -> list[Any]:
    if facts is None:
        return []
    if isinstance(facts, dict):
        return [{"ask": question, "answer": answer} for question, answer in facts.items()]
    if isinstance(facts, list):
        return facts
    problems.append(
        "`facts` must be `question: answer` lines or a list of entries with `ask` and `answer`"
    )
    return []


def _fact(entry: Any) -> PersonaFact:
    """The fact. ValueError with what is wrong with the entry."""
    allowed = {"ask", "answer", "accept"}
    if not isinstance(entry, dict) or not {"ask", "answer"} <= set(entry) <= allowed:
        raise ValueError("must have `ask` and `answer`, and may have `accept`")
    ask = entry["ask"] if isinstance(entry["ask"], list) else [entry["ask"]]
    answer = entry["answer"]
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        answer = str(answer)  # a year, written without quotes
    if not ask or not all(map(_is_phrase, ask)):
        raise ValueError("`ask` must be a question or a list of questions")
    if not _is_phrase(answer):
        raise ValueError("`answer` must be one line of text")
    accept = entry.get("accept", answer.strip().rstrip(".!"))
    accept = [str(word) for word in (accept if isinstance(accept, list) else [accept])]
    for word in accept:
        if not word.strip() or word.casefold() not in answer.casefold():
            raise ValueError(f"`accept` {word!r} is not in the answer {answer!r}")
    return PersonaFact(
        ask=tuple(" ".join(question.split()).rstrip("?.! ") for question in ask),
        answer=" ".join(answer.split()),
        accept=tuple(accept),
    )
