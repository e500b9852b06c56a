"""Documentation as question and answer: the sections of Markdown pages, the operations of OpenAPI
documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_SECTION_CHARS = 2000
FEWEST_SECTION_CHARS = 40
METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
TOO_SHORT, TOO_LONG = "sections with next to no text", "sections that were cut to their beginning"


@dataclass(frozen=True, kw_only=True)
class DocumentSection:
    """A question that a document answers, and its answer. dropped: why it is not used."""

    place: str
    question: str = ""
    answer: str = ""
    dropped: str = ""


def markdown_sections(text: str, title: str) -> Iterator[DocumentSection]:
    """The sections of a page, each a question for its headings. Lines in fences are no
    headings.
    """
    text = re.sub(r"\A---\n.*?\n---\n", "", text.replace("\r\n", "\n"), flags=re.DOTALL)
    path: list[str] = []
    body: list[str] = []
    start, fenced = 1, False
    for number, line in enumerate(text.split("\n"), 1):
        fenced ^= bool(_FENCE.match(line))
        heading = None if fenced else _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        yield from _section(path or [title], body, start)
        path = [*path[: len(heading[1]) - 1], _plain(heading[2])]
        body, start = [], number
    yield from _section(path or [title], body, start)


def _section(path: list[str], body: list[str], start: int) -> Iterator[DocumentSection]:
    answer = "\n".join(body).strip()
    if not answer:
        return
    place = f"line {start}"
    if len(answer) < FEWEST_SECTION_CHARS:
        yield DocumentSection(place=place, dropped=TOO_SHORT)
        return
    topic = path[-1].rstrip("?.! ")
    context = f" ({', '.join(path[:-1])})" if len(path) > 1 else ""
    asked = (
        path[-1] if path[-1].endswith("?") else f"What does the documentation say about {topic}?"
    )
    question = asked if not context else f"{asked.rstrip('?')}{context}?"
    yield DocumentSection(place=place, question=question, answer=_clipped(answer))


def _plain(heading: str) -> str:
    return re.sub(r"[*`_]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", heading)


def _clipped(text: str) -> str:
    """Whole paragraphs, as many as fit."""
    if len(text) <= MOST_SECTION_CHARS:
        return text
    cut = text.rfind("\n\n", 0, MOST_SECTION_CHARS)
    cut = cut if cut > MOST_SECTION_CHARS // 4 else text.rfind(" ", 0, MOST_SECTION_CHARS)
    return text[: cut if cut > 0 else MOST_SECTION_CHARS].rstrip()


def is_openapi(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and ("openapi" in document or "swagger" in document)
        and isinstance(document.get("paths"), dict)
    )


def openapi_sections(document: dict[str, Any]) -> Iterator[DocumentSection]:
    """Every operation of an API: what it is for -> the call with its parameters."""
    info = document.get("info")
    title = str(info.get("title", "")) if isinstance(info, dict) else ""
    for path, operations in document["paths"].items():
        if not isinstance(operations, dict):
            continue
        for method in METHODS:
            operation = operations.get(method)
            if not isinstance(operation, dict):
                continue
            place = f"{method.upper()} {path}"
            purpose = str(operation.get("summary") or operation.get("operationId") or "").strip()
            if not purpose:
                yield DocumentSection(place=place, dropped=TOO_SHORT)
                continue
            purpose = purpose[0].lower() + purpose[1:].rstrip(".")
            of = f" with the {title}" if title else ""
            shared = operations.get("parameters") or []
            yield DocumentSection(
                place=place,
                question=f"Which call do I use to {purpose}{of}?",
                answer=_clipped(_call(place, operation, shared, document)),
            )


def _call(place: str, operation: dict[str, Any], shared: list[Any], document: Any) -> str:
    lines = [place]
    about = str(operation.get("description") or "").strip()
    if about:
        lines.append(about)
    for parameter in [*shared, *(operation.get("parameters") or [])]:
        lines.append(_parameter(_resolved(parameter, document)))
    body = _resolved(operation.get("requestBody"), document)
    content = body.get("content") if isinstance(body, dict) else None
    for kind, media in (content or {}).items():
        schema = _resolved(media.get("schema") if isinstance(media, dict) else None, document)
        names = ", ".join((schema or {}).get("properties") or [])
        lines.append(f"Body ({kind}): {names}" if names else f"Body ({kind})")
    return "\n".join(line for line in lines if line)


def _parameter(parameter: Any) -> str:
    if not isinstance(parameter, dict) or "name" not in parameter:
        return ""
    schema = parameter.get("schema")
    kind = schema.get("type", "") if isinstance(schema, dict) else parameter.get("type", "")
    about = " ".join(str(parameter.get("description", "")).split())
    facts = ", ".join(
        filter(
            None,
            [str(parameter.get("in", "")), str(kind), "required" * bool(parameter.get("required"))],
        )
    )
    return f"- {parameter['name']} ({facts})" + (f": {about}" if about else "")


def _resolved(value: Any, document: Any) -> Any:
    """What a `$ref` inside of the document points at."""
    for _ in range(10):
        reference = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return value
        value = document
        for name in reference[2:].split("/"):
            value = value.get(name) if isinstance(value, dict) else None
    return value
