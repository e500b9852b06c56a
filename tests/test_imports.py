"""The shape of the package: imports only point down the list in which it is built
(docs/explanation/architecture.md), no circles, one name for one thing, nothing too long.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nanochat"

# Top to bottom. A module may import its own row and every row below it. Several names in a row are
# peers.
ORDER = [
    ("cli", "__main__"),
    ("launch",),
    ("report",),
    ("serve",),
    ("feedback",),
    ("store",),
    ("train",),
    ("eval",),
    ("exchange",),
    ("engine",),
    ("tasks",),
    ("sql",),
    ("dataset",),
    ("dataloader",),
    ("model_spec",),
    ("checkpoint_manager",),
    ("optim",),
    ("logprobs",),
    ("gpt", "gpt_config", "attention", "cost", "training_memory", "fp8"),
    ("tokenizer",),
    ("config",),
    ("runtime",),
]
ROW = {name: number for number, names in enumerate(ORDER) for name in names}
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


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


def upward(path: Path, tree: ast.AST) -> list[str]:
    """The imports of one module that point up, or at a name the table does not know."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if name == "__init__":
        return [
            f"{path.name}:{line}: the package root imports {target}"
            for line, target in imported(tree, path)
        ]
    if name not in ROW:
        return [f"{name}: not in the import order; give it a row"]
    wrong = []
    for line, target in imported(tree, path):
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


def test_imports_point_down():
    assert [line for path, tree in TREES.items() for line in upward(path, tree)] == []


def declared() -> set[str]:
    """What pyproject.toml lists, by the names under which it is imported."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.scripts]")[0]
    names = re.findall(r'"([A-Za-z0-9_.-]+)(?:\[[^"\]]*\])?(?:[><=~;][^"]*)?"', text)
    called = {"pyyaml": "yaml", "argon2-cffi": "argon2", "markdown-it-py": "markdown_it"}
    return {called.get(name.lower(), name.lower().replace("-", "_")) for name in names}


def test_the_package_imports_only_what_it_declares():
    known = declared() | set(sys.stdlib_module_names) | {"nanochat"}
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert name.split(".")[0].lower() in known, f"{where}: {name} is no dependency"


def test_the_check_can_fail():
    def wrong(file: str, text: str) -> list[str]:
        return upward(PACKAGE / file, ast.parse(text))

    assert wrong("gpt.py", "def f():\n    from nanochat.train import stages\n")
    assert wrong("gpt.py", "from . import engine\n")
    assert wrong("gpt.py", "import nanochat.unheard_of\n")
    assert wrong("optim/muon.py", "from ..engine import x\n")
    assert not wrong(
        "gpt.py",
        "import torch\nfrom nanochat.runtime import world\nfrom nanochat import __version__\n",
    )


def test_importing_does_nothing():
    """Module level holds definitions and constants: no calls as statements, no loops, no files
    opened.
    """
    runs = ("__main__.py", "env.py")  # env.py: Alembic runs it, nothing imports it
    for path, tree in TREES.items():
        for node in tree.body if path.name not in runs else ():
            where = f"{path.relative_to(ROOT)}:{node.lineno}: runs on import"
            assert not isinstance(node, (ast.For, ast.While, ast.With)), where
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                called = ast.unparse(node.value.func)
                assert called.endswith(".update"), where  # a constant table in two parts


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from run_time_nodes(node)


def imported_modules(trees: dict[str, ast.AST]) -> dict[str, set[str]]:
    """Dotted module -> the modules among `trees` that it imports, in functions too."""
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        wanted = set()
        for node in run_time_nodes(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                full = [f"{base}.{alias.name}" for alias in node.names]
                wanted |= {module if module in trees else base for module in full}
        found[name] = (wanted & trees.keys()) - {name}
    return found


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, in order; [] when there is none."""
    path: list[str] = []
    done: set[str] = set()

    def visit(name: str) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        path.append(name)
        for other in sorted(imports[name]):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for name in sorted(imports) if (found := visit(name))), [])


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_circles_between_files():
    imports = imported_modules({dotted(path): tree for path, tree in TREES.items()})
    assert circle(imports) == []


def test_a_circle_is_found():
    late = ast.parse("def f():\n    from nanochat import a\n")
    checked = ast.parse("if TYPE_CHECKING:\n    from nanochat.c import x\n")
    trees = {
        "nanochat.a": ast.parse("import nanochat.b"),
        "nanochat.b": ast.parse("from nanochat.c import x"),
        "nanochat.c": late,
    }
    assert circle(imported_modules(trees)) == ["nanochat.a", "nanochat.b", "nanochat.c"]
    trees["nanochat.b"] = checked
    assert circle(imported_modules(trees)) == []


def test_one_name_for_one_thing():
    """No two files of one name, none that is called like another room, no two public classes."""
    files: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        if path.name == "__init__.py":
            files.setdefault(path.parent.name, []).append(dotted(path))
        elif path.name != "__main__.py" and path.stem != path.parent.name:  # engine/engine.py
            files.setdefault(path.stem, []).append(dotted(path))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(dotted(path))
    assert {name: places for name, places in files.items() if len(places) > 1} == {}
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}


def test_nothing_is_too_long():
    """Files and functions, the latter without their docstring."""
    for path, tree in TREES.items():
        n_lines = len(path.read_text(encoding="utf-8").splitlines())
        assert n_lines <= 400, f"{path.name}: {n_lines} lines; split it at a noun"
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                n_lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node):
                    n_lines -= node.body[0].end_lineno - node.body[0].lineno + 1
                assert n_lines < 60, f"{path.name}: {node.name} has {n_lines} lines; extract a step"


def test_one_attribute_is_assigned_on_a_line():
    """And calls name their arguments where there are many."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                parts = [part for part in node.targets[0].elts if isinstance(part, ast.Attribute)]
                assert len(parts) < 3, f"{where}: assigns {len(parts)} attributes"
            if isinstance(node, ast.Call) and path.parent.name != "versions":  # a table's columns
                assert len(node.args) < 8, f"{where}: {len(node.args)} arguments by position"


def test_tests_do_not_patch_private_names():
    """They would hold the code to how it is written today."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            for word in node.args[:2] if call.endswith((".setattr", ".delattr")) else ():
                name = word.value if isinstance(word, ast.Constant) else ""
                private = isinstance(name, str) and re.search(r"(^|\.)_[a-z]", name)
                assert not private, f"{path.relative_to(ROOT)}:{node.lineno}: patches {name}"


def test_no_code_is_read_from_data():
    """No pickle.load, eval, exec, shell=True or weights_only=False anywhere in the package."""
    for path in MODULES:
        for node in ast.walk(TREES[path]):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            flags = {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert name not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"), (
                f"{where}: {name}"
            )
            assert flags.get("shell") != "True" and flags.get("weights_only") != "False", where
