"""`nanochat usage`: who took how many tokens, and what that share of the machine cost."""

from __future__ import annotations

import calendar
import csv
import io
import math
import re
import time
from dataclasses import dataclass
from typing import Literal

from nanochat.serve.users_command import DatabaseConfig, table

UNITS_S = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}


@dataclass(kw_only=True)
class UsageConfig(DatabaseConfig):
    """Requests, tokens, latency and cost by user, key, model or day."""

    since: str = "7d"
    """How far back: 12h, 7d, 4w, or a day as 2026-03-01 (UTC)."""
    by: Literal["user", "key", "model", "day"] = "user"
    """What the rows are."""
    hourly_rate: float | None = None
    """What an hour of the machine costs; each row's share of the hours is by tokens, since a rented
    machine costs the same whether it is busy or not.
    """
    csv: bool = False
    """For a spreadsheet."""

    def problems(self) -> list[str]:
        found = []
        try:
            since_s(self.since, time.time())
        except ValueError as error:
            found.append(f"--since={self.since}: {error}")
        rate = self.hourly_rate
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            found.append(f"--hourly-rate={rate}: must be an amount, 0 or more")
        return found


def usage(cfg: UsageConfig) -> str:
    from nanochat.store import usage as rows_of_usage
    from nanochat.store.upgrading import opened

    now = time.time()
    since = since_s(cfg.since, now)
    with opened(cfg.database) as database, database.read() as session:
        rows = rows_of_usage.totals(session, since, cfg.by)
        first = rows_of_usage.first_since(session, since)
    names = [cfg.by, "requests", "tokens in", "tokens out", "latency s", "first token s"]
    lines = [
        [
            row.name,
            str(row.requests),
            str(row.prompt_tokens),
            str(row.completion_tokens),
            seconds(row.latency_s),
            seconds(row.first_token_s),
        ]
        for row in rows
    ]
    hours = 0.0 if first is None else (now - first) / 3600
    if cfg.hourly_rate is not None:
        names.append("cost")
        costs = rows_of_usage.machine_cost(rows, hours=hours, hourly_rate=cfg.hourly_rate)
        for line, cost in zip(lines, costs, strict=True):
            line.append(f"{cost:.2f}")
    if cfg.csv:
        return as_csv([names, *lines])
    if not rows:
        return f"nothing was asked since {time.strftime('%Y-%m-%d %H:%M', time.gmtime(since))} UTC"
    said = table([tuple(line) for line in [names, *lines]])
    if cfg.hourly_rate is not None:
        total = hours * cfg.hourly_rate
        tokens = sum(row.tokens for row in rows)
        said += f"\n{hours:.1f} hours at {cfg.hourly_rate:g} since the first request: {total:.2f}"
        said += f", {1e6 * total / tokens:.2f} a million tokens" if tokens else ""
    return said


def since_s(text: str, now: float) -> float:
    """The time that is meant, in seconds since 1970. ValueError."""
    if match := re.fullmatch(r"(\d{1,6})([hdw])", text):
        return now - int(match[1]) * UNITS_S[match[2]]
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%d")))
    except ValueError:
        raise ValueError("write 12h, 7d, 4w, or a day as 2026-03-01") from None


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_csv(rows: list[list[str]]) -> str:
    """Comma-separated; what a spreadsheet would take for a formula is no longer one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        writer.writerow([f"'{cell}" if cell[:1] in "=+-@\t\r" and cell else cell for cell in row])
    return out.getvalue().rstrip("\n")
