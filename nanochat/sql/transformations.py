"""Models of dbt and Dataform: the query of a file, with its references as plain table names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

JINJA = "models whose templates only dbt or Dataform can fill in"
_REF = re.compile(
    r"\$\{\s*(?:ref|resolve)\(\s*(?P<a>[^)]*)\)\s*\}|"
    r"\{\{-?\s*(?:ref|source)\(\s*(?P<b>[^)]*)\)\s*-?\}\}"
)
_CONFIG = re.compile(r"\{\{-?\s*config\(.*?\)\s*-?\}\}", re.DOTALL)
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{|\{%|\$\{")
_BLOCK = re.compile(
    r"^\s*(config|js|pre_operations|post_operations|input)\b[^{\n]*\{", re.MULTILINE
)
_DESCRIPTION = re.compile(r"description\s*[:=]\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`)")


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A model's query and what it is for. problem: why it cannot be read."""

    query: str = ""
    description: str = ""
    problem: str = ""


def is_transformation(path: Path, head: str) -> bool:
    """Whether a text is a model of Dataform or dbt, by its name or by what is in it."""
    if path.suffix.lower() == ".sqlx":
        return True
    return path.suffix.lower() == ".sql" and bool(_REF.search(head) or _CONFIG.search(head))


def read_transformation(path: Path, text: str) -> Transformation:
    """The query of a model: blocks and settings taken out, `ref` and `source` replaced by names."""
    text = text.replace("\r\n", "\n")
    description = ""
    if path.suffix.lower() == ".sqlx":
        text, blocks = _without_blocks(text)
        found = _DESCRIPTION.search("\n".join(blocks))
        description = found[1][1:-1].strip() if found else ""
    text = _COMMENT.sub("", _CONFIG.sub("", text))
    text = _REF.sub(lambda match: _name(match["a"] or match["b"] or ""), text)
    # ${self()} and the like, and control structures, have no value without the tool
    if _TEMPLATE.search(text):
        return Transformation(problem=JINJA)
    return Transformation(query=text.strip(), description=" ".join(description.split()))


def _name(arguments: str) -> str:
    """`"schema", "table"` -> `schema.table`; dbt's package is left out like its schema."""
    parts = re.findall(r"[\"'`]([^\"'`]+)[\"'`]", arguments)
    return ".".join(parts[-2:])


def _without_blocks(text: str) -> tuple[str, list[str]]:
    """(the query, the blocks) of a Dataform file; a block ends where its braces do."""
    blocks: list[str] = []
    while match := _BLOCK.search(text):
        depth, place = 1, match.end()
        while depth and place < len(text):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        blocks.append(text[match.start() : place])
        text = text[: match.start()] + text[place:]
    return text, blocks
