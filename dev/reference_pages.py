"""Write the parts of the reference that the code itself knows: every setting of every command, and
every error message.

    python dev/reference_pages.py
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nanochat.config.fields import fields_of
from nanochat.config.help_page import name_and_value, told
from nanochat.launch.commands import COMMANDS, GROUPS, Command, load

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "docs" / "reference" / "configuration.md"
ISSUES = ROOT / "docs" / "how-to" / "troubleshoot-common-issues.md"
INTRODUCTION = """# Configuration

Every setting of every command, from the code (`python dev/reference_pages.py`). A flag may be
written with `_` or with `-`, `--depth=4` or `--depth 4`. `--config file.yaml` reads `name: value`
lines; the command line wins. `config.yaml` beside a checkpoint holds what a run was given. An
unknown name, a wrong type or an impossible combination is refused before anything is written, all
of them at once.
"""
ERRORS = ("ValueError", "ApiError")
MARKS = re.compile(r"(<!-- messages -->\n).*?(<!-- end -->)", re.DOTALL)


def all_commands() -> Iterator[tuple[str, Command]]:
    for name, command in COMMANDS.items():
        if name not in GROUPS:
            yield name, command
        for word, inner in GROUPS.get(name, {}).items():
            yield f"{name} {word}", inner


def configuration() -> str:
    """A table of settings for each command."""
    parts = [INTRODUCTION]
    for name, command in all_commands():
        if command.config is None:
            continue
        rows = [
            f"| `{cell(name_and_value(field))}` | {cell(told(field))} |"
            for field in fields_of(load(command.config))
        ]
        parts.append(
            f"## nanochat {name}\n{sentence(command.about)}\n\n| setting | meaning |\n|---|---|"
        )
        parts[-1] += "\n" + "\n".join(rows) + "\n"
    return "\n".join(parts)


def sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def cell(text: str) -> str:
    """Choices in alphabetical order: two `Literal` of the same words count as one to `typing`."""
    text = re.sub(r"\{([\w,.-]+)\}", lambda m: "{" + ",".join(sorted(m[1].split(","))) + "}", text)
    return text.replace("|", "\\|").replace("<", "&lt;")


def messages() -> dict[str, list[str]]:
    """Room -> the errors that its code words, with `...` for what differs."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "nanochat").rglob("*.py")):
        room = path.relative_to(ROOT / "nanochat").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if is_error(node) or is_problem(node):
                text = wording(node.args[0]) if node.args else ""
                if len(re.sub(r"\.\.\.|\W", "", text)) >= 12 and text not in found.get(room, []):
                    found.setdefault(room, []).append(text)
    return found


def is_error(node: ast.AST) -> bool:
    """`ValueError(...)`"""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS


def is_problem(node: ast.AST) -> bool:
    """`problems.append(...)` of a check that reports all at once."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "append"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("found", "problems", "wrong")
        and bool(re.search(r"[:;] ", wording(node.args[0])))
    )


def wording(node: ast.AST) -> str:
    """The text of a string, an f-string or strings that are added."""
    if isinstance(node, ast.Constant):
        return " ".join(node.value.split()) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        pieces = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
        return " ".join("".join(map(str, pieces)).split())
    if isinstance(node, ast.BinOp):
        return f"{wording(node.left)}{wording(node.right)}"
    return "..."


def message_list() -> str:
    parts = []
    for room, texts in sorted(messages().items()):
        lines = "\n".join(f"- `{text.replace('`', chr(39))}`" for text in sorted(texts))
        parts.append(f"### {room}\n{lines}")
    return "\n\n".join(parts)


def fill(page: str) -> str:
    """The page of common issues with the messages as the code words them today."""
    return MARKS.sub(lambda m: f"{m[1]}\n{message_list()}\n\n{m[2]}", page)


if __name__ == "__main__":
    CONFIGURATION.write_text(configuration(), encoding="utf-8")
    ISSUES.write_text(fill(ISSUES.read_text(encoding="utf-8")), encoding="utf-8")
