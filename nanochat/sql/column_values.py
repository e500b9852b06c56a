"""Values for a column: those that a query compares it with, their neighbours, and ordinary ones."""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanochat.sql.query_use import Condition

WORDS = (
    "amber birch cedar delta ember fjord grove haven iris jade karst lotus maple north opal pearl "
    "quartz river slate tulip umber vale willow yarrow"
).split()
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_FIRST_DAY = datetime.date(2019, 1, 1)


@dataclass(kw_only=True)
class ValuePool:
    """What a group of columns may hold. kind: as `created_tables.kind_of`. near: values that
    conditions tell apart; few: whether there are only some different ones, so that they repeat.
    """

    kind: str
    near: list[Any] = field(default_factory=list)
    plain: list[Any] = field(default_factory=list)
    few: bool = False

    def draw(self, rng: random.Random, at: int, share_near: float = 0.3) -> Any:
        """A value; `at`: the number of the row, by which columns of many values differ."""
        if self.near and rng.random() < share_near:
            return rng.choice(self.near)
        if self.few:
            return self.plain[rng.randrange(min(3, len(self.plain)))]
        return self.plain[at % len(self.plain)]


def value_pool(kind: str, conditions: Iterable[Condition], few: bool, rng: random.Random) -> Any:
    """The pool of columns of a kind that `conditions` are about."""
    near: list[Any] = []
    for condition in conditions:
        for value in condition.values:
            near += _neighbours(value, condition, kind)
        if condition.op == "between" and all(isinstance(v, (int, float)) for v in condition.values):
            near.append(sum(condition.values) / 2)
    fitted = [_as_kind(value, kind) for value in near]
    return ValuePool(
        kind=kind,
        near=list(dict.fromkeys(value for value in fitted if value is not None)),
        plain=_ordinary(kind, rng),
        few=few,
    )


def _neighbours(value: Any, condition: Condition, kind: str) -> list[Any]:
    """A literal and what lies beside it."""
    if condition.inside:
        return _inside(value, kind)
    if isinstance(value, bool):
        return [value, not value]
    if isinstance(value, (int, float)):
        steps = (0, 1, -1) if isinstance(value, int) else (0, 1, -1, 0.1, -0.1)
        return [
            value + step if isinstance(value, int) else round(value + step, 6) for step in steps
        ]
    if condition.op == "like":
        return _like_examples(value)
    if _DATE.match(value):
        return _near_dates(value)
    if re.fullmatch(r"-?\d{1,15}", value):
        return [value, str(int(value) + 1), str(int(value) - 1)]
    if condition.op in (">", ">=", "<", "<=", "between"):
        return [value, value + "0", value[:-1] + chr(max(33, ord(value[-1:] or "b") - 1))]
    return [value, value + " s", "no " + value]


def _inside(value: Any, kind: str) -> list[Any]:
    """Dates whose year, month or day is `value`, or that begin with it."""
    text = str(value)
    if re.fullmatch(r"(19|20)\d\d", text):
        year = int(text)
        return [f"{y}-{m}-15" for y in (year, year + 1, year - 1) for m in ("03", "11")]
    if re.fullmatch(r"(19|20)\d\d-\d\d", text):
        return [f"{text}-05", f"{text}-20", f"{int(text[:4]) + 1}{text[4:]}-05"]
    if re.fullmatch(r"\d{1,2}", text) and 1 <= int(text) <= 12 and kind in ("date", "datetime"):
        month = int(text)
        return [f"2020-{m:02d}-{day}" for m in (month, month % 12 + 1) for day in (11, 23)]
    if _DATE.match(text):
        return _near_dates(text)
    return [value]


def _like_examples(pattern: str) -> list[str]:
    """Texts that a pattern of LIKE takes and ones that it does not."""
    inner = pattern.replace("%", "").replace("_", "q")
    return [inner, f"xx{inner}", f"{inner}yy", f"xx{inner}yy", inner[:-1], "opal"]


def _near_dates(text: str) -> list[str]:
    try:
        day = datetime.date.fromisoformat(text[:10])
    except ValueError:
        return [text]
    near = [day + datetime.timedelta(days=days) for days in (0, 1, -1, 40, -400)]
    return [each.isoformat() + text[10:] for each in near]


def _as_kind(value: Any, kind: str) -> Any:
    """A value as a column of this kind holds it; None where it cannot."""
    if kind in ("int", "real"):
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                return None
        whole = float(value).is_integer()
        return int(value) if whole else (value if kind == "real" else int(value))
    if kind == "bool":
        return bool(value) if isinstance(value, (bool, int)) else None
    if kind in ("date", "datetime"):
        text = str(value)
        if not _DATE.match(text):
            return None
        try:
            datetime.date.fromisoformat(text[:10])
        except ValueError:
            return None
        if kind == "date":
            return text[:10]
        return text[:19] if len(text) > 10 else f"{text} 00:00:00"
    if kind == "other":
        return None
    return str(value) if not isinstance(value, bool) else str(int(value))


def _ordinary(kind: str, rng: random.Random) -> list[Any]:
    """A dozen or two values without a meaning, all different, in an order of their own."""
    if kind == "int":
        values: list[Any] = [*rng.sample(range(1, 60), 16), *rng.sample(range(60, 900), 8)]
    elif kind == "real":
        values = [rng.choice((1, 10)) * rng.randrange(1, 4000) / 8 for _ in range(24)]
    elif kind == "bool":
        return [True, False]
    elif kind in ("date", "datetime"):
        today = datetime.date.today()
        days = [_FIRST_DAY + datetime.timedelta(days=rng.randrange(1500)) for _ in range(16)]
        days += [today - datetime.timedelta(days=back) for back in (0, 1, 3, 6, 8, 20, 29, 35, 100)]
        values = [day.isoformat() for day in days]
        if kind == "datetime":
            values = [f"{day} {rng.randrange(24):02d}:{rng.randrange(60):02d}:07" for day in values]
    elif kind == "other":
        return [None]
    else:
        values = list(WORDS)
    values = list(dict.fromkeys(values))
    rng.shuffle(values)
    return values


def holds(condition: Condition, value: Any) -> bool:
    """Whether a value fulfils a condition, as far as that can be told without a database."""
    if condition.op == "null":
        return value is None
    if value is None:
        return False
    if condition.inside:
        return all(str(known) in str(value) for known in condition.values[:1])
    if condition.op == "like":
        pattern = re.escape(str(condition.values[0])).replace("%", ".*").replace("_", ".")
        return re.fullmatch(pattern, str(value), re.IGNORECASE | re.DOTALL) is not None
    values = [_comparable(known, value) for known in condition.values]
    mine = _comparable(value, value)
    if any(type(mine) is not type(each) for each in values):
        return False
    return _compare(condition.op, mine, values)


def _compare(op: str, mine: Any, values: Sequence[Any]) -> bool:
    if op == "in":
        return mine in values
    if op == "between":
        return bool(values[0] <= mine <= values[1])
    other = values[0]
    return bool(
        {
            "=": mine == other,
            "<>": mine != other,
            ">": mine > other,
            ">=": mine >= other,
            "<": mine < other,
            "<=": mine <= other,
        }[op]
    )


def _comparable(value: Any, like: Any) -> Any:
    """`value` as a number or text, whichever `like` is."""
    if isinstance(like, (int, float)):
        try:
            return float(value)
        except ValueError:
            return str(value)
    return str(value)
