"""Settings that look like secrets, found before anything is published."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LEFT_OUT = "left out: looks like a secret"
NAMES = re.compile(
    r"(^|[_-])(access_?|auth_?|api_?|hf_?|secret_?|private_?)*(token|key|secret|password|passwd|"
    r"credentials?|authorization)s?$",
    re.IGNORECASE,
)
# Tokens of the hub, of language-model services, GitHub, GitLab, Slack, AWS, Google; signed web
# tokens; passwords inside an address; private keys.
VALUES = re.compile(
    r"hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|"
    r"xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{12,}|AIza[\w-]{30,}|wandb_v\d_\w{16,}|"
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|://[^/\s:@]*:[^/\s@]+@|BEGIN [A-Z ]*PRIVATE KEY|"
    r"Bearer [\w.~+/-]{12,}"
)
# Forty hexadecimal letters are a key of W&B or a commit; by the name of the setting one can tell.
HEX_KEY = re.compile(r"[0-9a-f]{40}")
COMMITS = ("code_version", "commit", "revision", "version", "sha", "tokenizer")


def without_secrets(content: Any, where: str = "") -> tuple[Any, list[str]]:
    """The same plain data with every value that looks like a secret replaced, and the names of
    those. What they hold is told to nobody.
    """
    name = where.rpartition(".")[2]
    if isinstance(content, Mapping):
        cleaned, found = {}, []
        for key, value in content.items():
            clean_key = LEFT_OUT if VALUES.search(str(key)) else key
            cleaned[clean_key], more = without_secrets(value, f"{where}.{clean_key}".strip("."))
            found += more if clean_key == key else [where or "a key"]
        return cleaned, found
    if isinstance(content, (list, tuple)):
        pairs = [without_secrets(item, where) for item in content]
        return [item for item, _ in pairs], [name for _, names in pairs for name in names]
    if isinstance(content, str) and is_secret(name, content):
        return LEFT_OUT, [where]
    return content, []


def is_secret(name: str, value: str) -> bool:
    """Whether a setting of this name should not hold this value in public."""
    if not value:
        return False
    if VALUES.search(value):
        return True
    if HEX_KEY.fullmatch(value) and name not in COMMITS:
        return True
    return bool(NAMES.search(name)) and "<|" not in value
