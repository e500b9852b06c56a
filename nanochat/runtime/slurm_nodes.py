"""SLURM's nodes: a list of their names in short, and an address of one that the network knows."""

from __future__ import annotations

import re
import socket

from nanochat.runtime.programs import output_of


def expand_nodelist(nodelist: str) -> list[str]:
    """`gpu[003-005,12],login1` -> gpu003, gpu004, gpu005, gpu12, login1."""
    hosts = []
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\][^,\[]*)*", nodelist):
        match = re.match(r"([^\[]*)\[([^\]]*)\](.*)", part)
        if not match:
            hosts.append(part.strip())
            continue
        prefix, ranges, suffix = match.groups()
        for item in ranges.split(","):
            first, _, last = item.partition("-")
            for number in range(int(first), int(last or first) + 1):
                hosts += expand_nodelist(f"{prefix}{number:0{len(first)}d}{suffix}")
    return [host for host in hosts if host]


def node_address(node: str) -> str | None:
    """The node's name where the network knows it, else the address that SLURM has for it; None
    where neither helps.
    """
    told = output_of("scontrol", "-o", "show", "node", node) if not _resolves(node) else None
    if told is None:
        return node if _resolves(node) else None
    fields = dict(word.split("=", 1) for word in told.split() if "=" in word)
    candidates = (fields.get("NodeAddr", ""), fields.get("NodeHostName", ""))
    return next((name for name in candidates if name and _resolves(name)), None)


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False
