"""Imports only point down the list in which the package is built
(docs/explanation/architecture.md).
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat"

# Top to bottom. A module may import its own row and every row below it. Several names in a row are
# peers.
ORDER = [
    ("cli", "__main__"),
    ("launch",),
    ("report",),
    ("serve",),
    ("train",),
    ("eval",),
    ("engine",),
    ("tasks",),
    ("dataset",),
    ("dataloader",),
    ("checkpoint_manager", "importers", "export"),
    ("optim",),
    ("logprobs",),
    ("gpt", "gpt_config", "attention", "cost", "fp8"),
    ("tokenizer",),
    ("config",),
    ("runtime",),
]
ROW = {name: number for number, names in enumerate(ORDER) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST, path: Path) -> list[tuple[int, str]]:
    """(line, dotted name below nanochat) of every import, also those inside functions."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ("nanochat", *path.relative_to(PACKAGE).parts[:-1])
                base = ".".join([*here[: len(here) - node.level + 1], *([base] if base else [])])
            # `from nanochat import gpt` imports the module gpt
            found += [
                (node.lineno, f"{base}.{alias.name}" if base == "nanochat" else base)
                for alias in node.names
            ]
    return [
        (line, name.removeprefix("nanochat."))
        for line, name in found
        if name.startswith("nanochat.")
    ]


def row_of(dotted: str) -> int | None:
    name = dotted.split(".")[0]
    if name.startswith("__") and name != "__main__":
        return len(ORDER)  # nanochat.__version__: the package itself, below everything
    return ROW.get(name)


def upward(path: Path, text: str) -> list[str]:
    """The imports of one module that point up, or at a name the table does not know."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if name == "__init__":
        return [
            f"{path.name}:{line}: the package root imports {target}"
            for line, target in imported(ast.parse(text), path)
        ]
    if name not in ROW:
        return [f"{name}: not in the import order; give it a row"]
    wrong = []
    for line, target in imported(ast.parse(text), path):
        row = row_of(target)
        if row is None:
            wrong.append(
                f"{path.relative_to(ROOT)}:{line}: {target} has no row in the import order"
            )
        elif row < ROW[name]:
            wrong.append(
                f"{path.relative_to(ROOT)}:{line}: {name} imports {target}, which is above it"
            )
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    assert upward(path, path.read_text(encoding="utf-8")) == []


def declared() -> set[str]:
    """What pyproject.toml lists, by the names under which it is imported."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    names = re.findall(r'"([A-Za-z0-9_.-]+)(?:[><=~;][^"]*)?"', text)
    called = {"pyyaml": "yaml"}
    return {called.get(name.lower(), name.lower().replace("-", "_")) for name in names}


def test_the_package_imports_only_what_it_declares():
    known = declared() | set(sys.stdlib_module_names) | {"nanochat"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert name.split(".")[0].lower() in known, f"{where}: {name} is no dependency"


def test_the_check_can_fail():
    gpt = PACKAGE / "gpt.py"
    assert upward(gpt, "def f():\n    from nanochat.train import stages\n")
    assert upward(gpt, "from . import engine\n")
    assert upward(gpt, "import nanochat.unheard_of\n")
    assert not upward(
        gpt,
        "import torch\nfrom nanochat.runtime.world import World\nfrom nanochat import "
        "__version__\n",
    )
    assert upward(PACKAGE / "optim" / "muon.py", "from ..engine import x\n")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_importing_does_nothing(path):
    """Module level holds definitions and constants: no calls as statements, no loops, no files
    opened.
    """
    if path.name == "__main__.py":
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        call = (
            node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        )
        completes = call is not None and ast.unparse(call.func).endswith(
            ".update"
        )  # a constant table in two parts
        bad = isinstance(node, (ast.For, ast.While, ast.With)) or (
            call is not None and not completes
        )
        assert not bad, f"{path.relative_to(ROOT)}:{node.lineno}: runs on import"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400, f"{path.name}: {len(lines)} lines; split it at a noun"


def test_no_code_is_read_from_data():
    """No pickle.load, eval, exec, shell=True or weights_only=False anywhere in the package."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert name not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"), (
                f"{where}: {name}"
            )
            assert flags.get("shell") != "True" and flags.get("weights_only") != "False", where
