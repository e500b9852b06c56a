"""Fill in what docs/explanation/architecture.md can read off the code: a line for each file of the
package, from its docstring, and the picture of which room imports which.

    python dev/architecture.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"


def first_sentence(tree: ast.Module) -> str:
    """The first sentence of a module's docstring, in one line."""
    text = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s(?=[A-Z`(])", text)[0].rstrip(":")


def files() -> dict[str, ast.Module]:
    """Path below the package -> parsed file, without empty ones."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: (len(p.parts) > 2, str(p))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body:
            found[path.relative_to(PACKAGE).as_posix()] = tree
    return found


def tree_lines() -> str:
    """`engine/sampler.py  Draws tokens ...`, a block for each room."""
    rooms: dict[str, list[str]] = {}
    for name, tree in files().items():
        room, _, _ = name.rpartition("/")
        rooms.setdefault(room, []).append(f"| `{name}` | {first_sentence(tree)} |")
    blocks = []
    for room in sorted(rooms):
        title = f"{room}/" if room else "top"
        blocks.append(
            f"### {title}\n\n| file | what it holds |\n|---|---|\n" + "\n".join(rooms[room])
        )
    return "\n\n".join(blocks)


def imports() -> dict[str, set[str]]:
    """Room -> rooms it imports."""
    found: dict[str, set[str]] = {}
    for name, tree in files().items():
        here = name.split("/")[0].removesuffix(".py")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nanochat."):
                found.setdefault(here, set()).add(node.module.split(".")[1])
    return {here: there - {here} for here, there in found.items()}


def picture() -> str:
    """Mermaid: an arrow from each room to the rooms it imports, without those that a longer way
    says already.
    """
    direct = imports()

    def reach(room: str) -> set[str]:
        return {room}.union(*(reach(next_) for next_ in direct.get(room, ())))

    arrows = [
        f"    {here} --> {there}"
        for here in sorted(direct)
        for there in sorted(direct[here])
        if not any(there in reach(other) for other in direct[here] - {there})
    ]
    return "```mermaid\ngraph TD\n" + "\n".join(arrows) + "\n```"


def fill(page: str) -> str:
    """The page with both parts as the code has them today."""
    for name, text in (("files", tree_lines()), ("imports", picture())):
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda m, text=text: f"{m[1]}\n{text}\n\n{m[2]}",
            page,
            flags=re.DOTALL,
        )
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
