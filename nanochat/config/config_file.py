"""Settings from a YAML file: `name: value` lines, each read as the same words on a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nanochat.config.fields import Field
from nanochat.runtime.errors import reason
from nanochat.runtime.suggest import suggestion


def read_file(
    path: str, fields: Sequence[Field], gone: Mapping[str, str] = {}
) -> tuple[dict[str, Any], list[str]]:
    """-> (values by field name, everything wrong with the file). `gone`: name of a field that older
    versions had -> what to say of it.
    """
    where = f"--config={path}"
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        return {}, [f"{where}: cannot be read ({error.strerror}); give an existing YAML file"]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = reason(error)
        return {}, [f"{where}: not valid YAML ({why}); write one `key: value` a line"]
    if root is None:
        return {}, []
    if not isinstance(root, yaml.MappingNode):
        return {}, [f"{where}: must hold `key: value` lines"]
    by_name = {field.name: field for field in fields}
    values: dict[str, Any] = {}
    problems = []
    seen = set()
    for key_node, node in root.value:
        key = written(key_node)
        name = key.replace("-", "_")
        said = f"{path}: {key}={written(node)}"
        if name in gone:
            problems.append(f"{said}: {gone[name]}")
            continue
        if name not in by_name:
            problems.append(f"{said}: unknown setting{suggestion(name, by_name, 'see --help')}")
            continue
        if name in seen:
            problems.append(f"{said}: {name} stands twice in this file; remove one")
        seen.add(name)
        try:
            values[name] = value_of(node, by_name[name])
        except ValueError as error:
            problems.append(f"{said}: {error}{by_name[name].example()}")
    return values, problems


def value_of(node: Any, field: Field) -> Any:
    """The value of a YAML node. Text is taken as it is written: `007` and `yes` stay text."""
    kind = field.kind
    if node.tag.endswith(":null") and kind.optional:
        return None
    items = node.value if isinstance(node, yaml.SequenceNode) and kind.container else [node]
    if any(not isinstance(item, yaml.ScalarNode) or item.tag.endswith(":null") for item in items):
        raise ValueError(f"expected {kind}")
    words = [item.value for item in items]
    if kind.scalar in (str, Path) and not kind.choices and not kind.container:
        return kind.read_item(words[0])  # also the word None
    return kind.read(words)


def written(node: Any) -> str:
    """A YAML node roughly as it stands in the file."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return "[" + ", ".join(map(written, node.value)) + "]"
    return "{" + ", ".join(f"{written(key)}: {written(value)}" for key, value in node.value) + "}"
