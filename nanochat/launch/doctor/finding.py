"""What a check found, and how people and programs are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "error"]
COLOURS = {"ok": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[1;31m"}
PLAIN = "\x1b[0m"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line. `found`: what is there; `fix`: what to do where that is not right."""

    name: str
    state: State
    found: str
    fix: str = ""

    def line(self, width: int, colour: bool) -> str:
        state = f"{self.state:<8}"
        if colour:
            state = f"{COLOURS[self.state]}{state}{PLAIN}"
        text = f"{self.found}; {self.fix}" if self.fix else self.found
        return f"{state} {self.name:<{width}}  {text}"


def ok(name: str, found: str) -> Finding:
    return Finding(name=name, state="ok", found=found)


def warning(name: str, found: str, fix: str = "") -> Finding:
    return Finding(name=name, state="warning", found=found, fix=fix)


def error(name: str, found: str, fix: str = "") -> Finding:
    return Finding(name=name, state="error", found=found, fix=fix)


def as_lines(findings: Sequence[Finding], colour: bool) -> str:
    """The lines for people, and how many there were of each kind."""
    width = max(len(finding.name) for finding in findings)
    counts = {state: sum(f.state == state for f in findings) for state in COLOURS}
    total = f"doctor: {counts['error']} error(s), {counts['warning']} warning(s), {counts['ok']} ok"
    return "\n".join([*(finding.line(width, colour) for finding in findings), total])


def as_json(findings: Sequence[Finding]) -> str:
    """`{"ok": ..., "checks": [{"name", "state", "found", "fix"}, ...]}`"""
    good = all(finding.state != "error" for finding in findings)
    return json.dumps({"ok": good, "checks": [asdict(finding) for finding in findings]}, indent=1)
