"""Parts of a parsed query in words: columns, aggregates, functions, conditions."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from nanochat.sql.dialect_parser import exp
from nanochat.sql.table_schema import SQLTable

FindTable = Callable[[str], "SQLTable | None"]
MOST_DESCRIPTION_WORDS = 5
_COMPARED: dict[Any, tuple[str, ...]] = {
    exp.EQ: ("is", "equals"),
    exp.NEQ: ("is not",),
    exp.GT: ("is above", "is more than", "is greater than"),
    exp.GTE: ("is at least",),
    exp.LT: ("is below", "is less than"),
    exp.LTE: ("is at most",),
}
_TURNED = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}
_AGGREGATES: dict[Any, tuple[str, ...]] = {
    exp.Sum: ("total", "sum of"),
    exp.Avg: ("average", "mean"),
    exp.Min: ("lowest", "smallest"),
    exp.Max: ("highest", "largest"),
    exp.ApproxDistinct: ("number of different",),
    exp.Median: ("median",),
}
ARITHMETIC = {exp.Add: "plus", exp.Sub: "minus", exp.Mul: "times", exp.Div: "divided by"}
_PERIODS = {
    "%Y": "year",
    "%m": "month of the year",
    "%Y-%m": "month",
    "%d": "day of the month",
    "%Y-%m-%d": "day",
    "%H": "hour",
    "%w": "day of the week",
}
_UNITS: dict[Any, str] = {
    exp.Year: "year",
    exp.Month: "month of the year",
    exp.Day: "day of the month",
    exp.Date: "date",
    exp.TsOrDsToDate: "date",
}
_CALLS = {
    "tostartofmonth": "month of",
    "tostartofweek": "week of",
    "tostartofday": "day of",
    "tostartofhour": "hour of",
    "tostartofyear": "year of",
    "toyyyymm": "month of",
    "uniq": "number of different",
    "uniqexact": "number of different",
    "todate": "date of",
    "todayofweek": "day of the week of",
}
_CONDITIONAL = {"sumif": "total", "avgif": "average", "minif": "lowest", "maxif": "highest"}
WORDED = frozenset(
    "expressions from_ joins where prewhere group having order limit offset distinct".split()
)
_UNSAID = frozenset("kind hint settings format".split())


class NoWords(ValueError):
    """A part of a query that cannot be said here."""


def spaced(name: str) -> str:
    """`customerId`, `customer_id` -> `customer id`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.]+", " ", name).split()
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def singular(noun: str) -> str:
    """`order items` -> `order item`."""
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("sses", "shes", "ches", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) else noun


def joined(parts: Sequence[str], word: str = "and") -> str:
    """`a, b and c`"""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"


class Phrases:
    """Words for the parts of one SELECT. find: the definition of a table by its name; rng: decides
    between words that mean the same.
    """

    def __init__(self, tree: Any, find: FindTable, rng: random.Random) -> None:
        said = {name for name, value in tree.args.items() if value}
        if not isinstance(tree, exp.Select) or said - WORDED - _UNSAID:
            raise NoWords
        self.tree = tree
        self.find = find
        self.rng = rng
        self.tables = self._tables()
        self.named = {
            p.alias.casefold(): p.this for p in tree.expressions if isinstance(p, exp.Alias)
        }
        self._phrases: dict[tuple[str, str], str] = {}

    def _tables(self) -> dict[str, str]:
        """Alias -> table, the one of FROM first."""
        start = self.tree.args.get("from_")
        sources = [start.this] if start is not None else []
        sources += [join.this for join in self.tree.args.get("joins") or []]
        found = {}
        for source in sources:
            source = source.this if isinstance(source, exp.Final) else source
            if not isinstance(source, exp.Table) or not isinstance(source.this, exp.Identifier):
                raise NoWords
            name = ".".join(part.name for part in source.parts)
            if source.alias_or_name.casefold() in found:
                raise NoWords
            found[source.alias_or_name.casefold()] = name
        if not found:
            raise NoWords
        return found

    @property
    def noun(self) -> str:
        """What the rows of the first table are called."""
        return self._noun(next(iter(self.tables.values())))

    def _noun(self, table: str) -> str:
        return spaced(table.rsplit(".", 1)[-1])

    def condition(self, node: Any) -> str:
        """A condition, to stand after `where` or `whose`."""
        if isinstance(node, exp.Paren):
            return self.condition(node.this)
        if isinstance(node, exp.And):
            return f"{self._inner(node.this)} and {self._inner(node.expression)}"
        if isinstance(node, exp.Or):
            return f"{self._inner(node.this)} or {self._inner(node.expression)}"
        if type(node) in _COMPARED:
            return self._comparison(node)
        if isinstance(node, exp.Not):
            return self._negated(node.this)
        return self._test(node, "")

    def _inner(self, node: Any) -> str:
        text = self.condition(node)
        mixed = isinstance(node, exp.Paren) and isinstance(node.this, (exp.And, exp.Or))
        return f"({text})" if mixed else text

    def _negated(self, node: Any) -> str:
        if isinstance(node, exp.Paren):
            return f"not ({self.condition(node.this)})"
        return self._test(node, "not ")

    def _test(self, node: Any, no: str) -> str:
        """A test other than a comparison; no: `not ` for its opposite."""
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return f"{self.say(node.this)} is {'given' if no else 'missing'}"
        if isinstance(node, exp.Between):
            low, high = self.say(node.args["low"]), self.say(node.args["high"])
            return f"{self.say(node.this)} is {no}between {low} and {high}"
        if isinstance(node, exp.In):
            if node.args.get("query") is not None:
                return f"{self.say(node.this)} is {no}among {self._subquery(node.args['query'])}"
            if not node.expressions:
                raise NoWords
            values = joined([self.say(value) for value in node.expressions], "or")
            return f"{self.say(node.this)} is {no}{'one of ' * (not no)}{values}"
        if isinstance(node, (exp.Like, exp.ILike)) and isinstance(node.expression, exp.Literal):
            return f"{self.say(node.this)} {_like(node.expression.name, bool(no))}"
        raise NoWords

    def _comparison(self, node: Any) -> str:
        left, right, kind = node.this, node.expression, type(node)
        if isinstance(left, exp.Literal) and not isinstance(right, exp.Literal):
            left, right, kind = right, left, _TURNED.get(kind, kind)
        words = self.rng.choice(_COMPARED[kind])
        if re.search("date|time", self._type(left)):
            words = {
                exp.GT: "is after",
                exp.LT: "is before",
                exp.GTE: "is on or after",
                exp.LTE: "is on or before",
            }.get(kind, words)
        if isinstance(right, exp.Subquery):
            return f"{self.say(left)} {words} {self._subquery(right)}"
        return f"{self.say(left)} {words} {self.say(right)}"

    def _subquery(self, node: Any) -> str:
        inner = type(self)(
            node.this if isinstance(node, exp.Subquery) else node, self.find, self.rng
        )
        if any(inner.tree.args.get(part) for part in ("order", "limit", "group", "offset")):
            raise NoWords
        chosen = [p.unalias() for p in inner.tree.expressions]
        if len(chosen) != 1:
            raise NoWords
        return f"the {inner.say(chosen[0])} of {inner.noun}{inner.where()}"

    def say(self, node: Any) -> str:
        """An expression in words."""
        node = node.unalias()
        if isinstance(node, exp.Paren):
            return f"({self.say(node.this)})"
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, (exp.Literal, exp.Neg, exp.Boolean)):
            return self._literal(node)
        if isinstance(node, exp.Count):
            return self._count(node)
        if isinstance(node, exp.CountIf):
            return f"number of {self.noun} where {self.condition(node.this)}"
        if type(node) in _AGGREGATES:
            return self._aggregate(node)
        if type(node) in ARITHMETIC:
            return f"{self.say(node.this)} {ARITHMETIC[type(node)]} {self.say(node.expression)}"
        return self._function(node)

    def _count(self, node: Any) -> str:
        if counts_rows(node):
            return f"number of {self.noun}"
        if isinstance(node.this, exp.Distinct) and len(node.this.expressions) == 1:
            return f"number of different {self.say(node.this.expressions[0])}"
        if isinstance(node.this, exp.Column) and not node.expressions:
            return f"number of {self.noun} with a {self.say(node.this)}"
        raise NoWords

    def _aggregate(self, node: Any) -> str:
        if isinstance(node.this, exp.Distinct):
            raise NoWords
        words = self.rng.choice(_AGGREGATES[type(node)])
        if isinstance(node, (exp.Min, exp.Max)) and re.search("date|time", self._type(node.this)):
            words = "earliest" if isinstance(node, exp.Min) else "latest"
        inner = self.say(node.this)
        if inner.split()[0] == words:  # `total total`
            return inner if len(inner.split()) > 1 else f"sum of {inner}"
        return f"{words} {inner}"

    def _function(self, node: Any) -> str:
        if isinstance(node, exp.Round) and isinstance(node.this, exp.Expression):
            digits = node.args.get("decimals")
            to = f" to {self._literal(digits)} digits" if digits is not None else ""
            return f"{self.say(node.this)} rounded{to}"
        if isinstance(node, (exp.DateTrunc, exp.TimestampTrunc)):
            return f"{node.text('unit').lower()} of {self.say(node.this)}"
        if isinstance(node, exp.TimeToStr) and node.text("format") in _PERIODS:
            inner = node.this
            while isinstance(inner, (exp.Cast, exp.TsOrDsToTimestamp)):
                inner = inner.this
            return f"{_PERIODS[node.text('format')]} of {self.say(inner)}"
        if isinstance(node, exp.Extract):
            return f"{node.name.lower()} of {self.say(node.expression)}"
        if type(node) in _UNITS and node.this:
            return f"{_UNITS[type(node)]} of {self.say(node.this)}"
        if isinstance(node, (exp.Cast, exp.TryCast)):
            return "date of " * node.is_type("date") + self.say(node.this)
        if isinstance(node, exp.Quantile):
            return f"{self._literal(node.args['quantile'])} quantile of {self.say(node.this)}"
        if isinstance(node, exp.SafeDivide):
            return f"{self.say(node.this)} divided by {self.say(node.expression)}"
        if isinstance(node, (exp.Lower, exp.Upper)):
            case = "lower" if isinstance(node, exp.Lower) else "upper"
            return f"{self.say(node.this)} in {case} case"
        if isinstance(node, exp.Abs):
            return f"absolute {self.say(node.this)}"
        if isinstance(node, exp.Length):
            return f"length of {self.say(node.this)}"
        if isinstance(node, exp.Coalesce) and len(node.expressions) == 1:
            return f"{self.say(node.this)} ({self.say(node.expressions[0])} where it is missing)"
        if isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc, exp.CombinedAggFunc)):
            return self._named_function(node)
        raise NoWords

    def _named_function(self, node: Any) -> str:
        name = node.name.casefold()
        if name in _CALLS and len(node.expressions) == 1:
            return f"{_CALLS[name]} {self.say(node.expressions[0])}"
        if name in _CONDITIONAL and len(node.expressions) == 2:
            value, test = node.expressions
            return f"{_CONDITIONAL[name]} {self.say(value)} where {self.condition(test)}"
        raise NoWords

    def _literal(self, node: Any) -> str:
        if isinstance(node, exp.Neg):
            return f"-{self._literal(node.this)}"
        if isinstance(node, exp.Boolean):
            return "true" if node.this else "false"
        if not isinstance(node, exp.Literal):
            raise NoWords
        return node.name if node.name.strip() else "empty"

    def _column(self, node: Any) -> str:
        if not node.table and node.name.casefold() in self.named:
            named = self.named[node.name.casefold()]
            if not isinstance(named, exp.Column) or named.name.casefold() != node.name.casefold():
                return self.say(named)
        if isinstance(node.this, exp.Star):
            raise NoWords
        table = self._owner(node)
        key = (table, node.name.casefold())
        if key not in self._phrases:
            self._phrases[key] = self._column_phrase(table, node.name)
        return self._phrases[key]

    def _owner(self, node: Any) -> str:
        """The table of a column; "" where it cannot be known."""
        if node.table:
            if node.table.casefold() not in self.tables:
                raise NoWords
            return self.tables[node.table.casefold()]
        if len(self.tables) == 1:
            return next(iter(self.tables.values()))
        defined = {name: self.find(name) for name in self.tables.values()}
        owners = [name for name, table in defined.items() if table and table.column(node.name)]
        return owners[0] if len(owners) == 1 else ""

    def _column_phrase(self, table: str, name: str) -> str:
        phrase = spaced(name)
        defined = self.find(table) if table else None
        column = defined.column(name) if defined is not None else None
        if column is not None and column.description:
            about = column.description.rstrip(". ")
            if len(about.split()) <= MOST_DESCRIPTION_WORDS and self.rng.random() < 0.5:
                phrase = about[0].lower() + about[1:] if about[1:2].islower() else about
        if len(self.tables) > 1 and table:
            owner = singular(self._noun(table))
            if not phrase.startswith(owner):
                phrase = f"{owner} {phrase}"
        return phrase

    def _type(self, node: Any) -> str:
        """The type of a column as it is defined, in lower case; "" where it is not known."""
        node = self._resolved(node)
        if not isinstance(node, exp.Column):
            return ""
        table = self.find(self._owner(node) or "")
        column = table.column(node.name) if table is not None else None
        return column.type.lower() if column is not None else ""

    def _resolved(self, node: Any) -> Any:
        """What an alias or a position stands for."""
        if isinstance(node, exp.Column) and not node.table:
            return self.named.get(node.name.casefold(), node)
        if isinstance(node, exp.Literal) and node.name.isdigit():
            place = int(node.name) - 1
            if not 0 <= place < len(self.tree.expressions):
                raise NoWords
            return self.tree.expressions[place].unalias()
        return node

    def where(self) -> str:
        """What the rows have to be like; said by whoever makes the sentence."""
        raise NotImplementedError


def is_aggregate(node: Any) -> bool:
    """Whether an expression is one value for many rows."""
    if isinstance(node, exp.Window) or node.find(exp.Window):
        raise NoWords
    if isinstance(node, (exp.AggFunc, exp.AnonymousAggFunc, exp.CombinedAggFunc)):
        return True
    inner = [part for part in node.iter_expressions() if not isinstance(part, exp.Literal)]
    wraps = isinstance(node, (exp.Round, exp.Paren, *ARITHMETIC))
    return wraps and bool(inner) and all(is_aggregate(part) for part in inner)


def counts_rows(node: Any) -> bool:
    counted = isinstance(node, exp.Count)
    return counted and (node.this is None or isinstance(node.this, (exp.Star, exp.Literal)))


def _like(pattern: str, no: bool) -> str:
    """What a LIKE pattern asks for."""
    inside = pattern.strip("%")
    if not inside or "%" in inside or "_" in inside:
        return f"{'does not match' if no else 'matches'} {pattern}"
    verbs = {
        (True, True): ("contains", "does not contain"),
        (False, True): ("starts with", "does not start with"),
        (True, False): ("ends with", "does not end with"),
        (False, False): ("is", "is not"),
    }
    return f"{verbs[pattern.startswith('%'), pattern.endswith('%')][no]} {inside}"
