"""A question in words made from a parsed query: tables, columns, aggregates, filters, groups, order
and limits. The same query and seed give the same words; another seed gives other ones.

A query of which any part has no words here gets no question: half a question teaches guessing.
"""

from __future__ import annotations

import random
import re
from typing import Any

from nanochat.sql.dialect_parser import exp
from nanochat.sql.phrases import (
    FindTable,
    NoWords,
    Phrases,
    counts_rows,
    is_aggregate,
    joined,
)

_LIST = ("List", "Show", "Show me", "Give me", "Return")
_WHAT = ("What is", "Tell me", "Show", "Give me")
_EACH = ("for each", "per", "by")
_LIMIT = ("only the first {}", "limited to {}", "the first {} only")


def question_for(tree: Any, find: FindTable, seed: str) -> str | None:
    """The question that a query answers; None where a part of it has no words. find: the
    definition of a table by its name, for what its columns mean.
    """
    try:
        return _Wording(tree, find, random.Random(seed)).question()
    except (NoWords, RecursionError):
        return None


class _Wording(Phrases):
    """The sentence for one SELECT."""

    def question(self) -> str:
        """One sentence with its end."""
        text, asks = self.core()
        text += self.order() + self.limit()
        text = text[0].upper() + text[1:]
        return text + ("?" if asks else ".")

    def core(self) -> tuple[str, bool]:
        """(what is selected of what, where; whether it is asked as a question)."""
        group = self.tree.args.get("group")
        chosen = [p.unalias() for p in self.tree.expressions]
        if group is not None:
            return self._grouped(chosen, group), False
        if all(is_aggregate(node) for node in chosen):
            return self._aggregates(chosen)
        if any(node.find(exp.AggFunc) for node in chosen):
            raise NoWords
        return self._listing(chosen), False

    def _aggregates(self, chosen: list[Any]) -> tuple[str, bool]:
        where = self.where()
        if len(chosen) == 1 and counts_rows(chosen[0]):
            asked = self.rng.choice(("How many {} are there", "How many {}", "Count the {}"))
            return asked.format(self.noun) + where, asked.startswith("How")
        opening = self.rng.choice(_WHAT)
        what = joined([f"the {self.say(node)}" for node in chosen])
        if len(chosen) > 1 and opening == "What is":
            opening = "What are"
        of = "" if any(counts_rows(node) for node in chosen) else f" of {self.noun}"
        return f"{opening} {what}{of}{where}", opening.startswith("What")

    def _grouped(self, chosen: list[Any], group: Any) -> str:
        if {k for k, v in group.args.items() if v} - {"expressions"} or not group.expressions:
            raise NoWords
        keys = [self._resolved(node) for node in group.expressions]
        shown = [node.sql() for node in chosen]
        rest = [node for node in chosen if node.sql() not in {key.sql() for key in keys}]
        if any(not is_aggregate(node) for node in rest):
            raise NoWords
        by = joined([self.say(key) for key in keys])
        hidden = [key for key in keys if key.sql() not in shown]
        if not rest:
            what = f"{self.rng.choice(_LIST)} the different {by} of {self.noun}"
        else:
            counted = any(counts_rows(node) for node in rest)
            of = "" if counted else f" of {self.noun}"
            what = joined([f"the {self.say(node)}" for node in rest])
            what = f"{self.rng.choice(_LIST)} {what}{of} {self.rng.choice(_EACH)} {by}"
        if hidden:
            what += f" without showing the {joined([self.say(key) for key in hidden])}"
        elif rest and shown[0] not in {key.sql() for key in keys}:
            what += f" with the {by} last"
        having = self.tree.args.get("having")
        kept = f", only those whose {self.condition(having.this)}" if having is not None else ""
        return what + self.where() + kept

    def _listing(self, chosen: list[Any]) -> str:
        different = "different " if self.tree.args.get("distinct") else ""
        opening = self.rng.choice(_LIST)
        if len(chosen) == 1 and isinstance(chosen[0], exp.Star):
            what = self.rng.choice(("everything about", "all columns of"))
            return f"{opening} {what} {different}{self.noun}{self.where()}"
        columns = joined([self.say(node) for node in chosen])
        whole = "" if self.tree.args.get("where") or self.tree.args.get("limit") else "all "
        return f"{opening} the {different}{columns} of {whole}{self.noun}{self.where()}"

    def where(self) -> str:
        """The joins that have to be said, and the conditions."""
        parts = self._joins()
        for name in ("prewhere", "where"):
            node = self.tree.args.get(name)
            if node is not None:
                parts.append(f"{self.rng.choice((' where', ' whose'))} {self.condition(node.this)}")
        return "".join(parts)

    def _joins(self) -> list[str]:
        parts = []
        outside = self.tree.copy()
        for join in outside.args.get("joins") or []:
            join.set("on", None)
        used = {column.table.casefold() for column in outside.find_all(exp.Column)}
        for join in self.tree.args.get("joins") or []:
            on, side = join.args.get("on"), (join.side or "").upper()
            odd = join.args.get("using") or join.args.get("method") or join.kind == "CROSS"
            if odd or on is None or side not in ("", "LEFT") or not is_key(on):
                raise NoWords
            alias = join.this.alias_or_name.casefold()
            noun = self._noun(self.tables[alias])
            if side == "LEFT":
                parts.append(f" (also those without {noun})")
            elif alias not in used:
                parts.append(f" that have {noun}")
        return parts

    def order(self) -> str:
        """How the rows are to be sorted."""
        order = self.tree.args.get("order")
        if order is None:
            return ""
        parts = []
        for node in order.expressions:
            down = bool(node.args.get("desc"))
            subject = self._resolved(node.this)
            words = self._directions(subject)[down]
            parts.append(f"{self.say(subject)} {words}")
        return f", sorted by {', then by '.join(parts)}"

    def _directions(self, node: Any) -> tuple[str, str]:
        kind = self._type(node)
        if re.search("date|time", kind):
            return "with the earliest first", "with the latest first"
        if re.search("char|text|string|clob", kind):
            return "alphabetically", "in reverse alphabetical order"
        if self.rng.random() < 0.5:
            return "with the lowest first", "with the highest first"
        return "from low to high", "from high to low"

    def limit(self) -> str:
        """How many rows are wanted, and from which."""
        limit, offset = self.tree.args.get("limit"), self.tree.args.get("offset")
        text = ""
        if limit is not None:
            number = limit.expression
            if not isinstance(number, exp.Literal) or limit.args.get("expressions"):
                raise NoWords
            text = f", {self.rng.choice(_LIMIT).format(number.name)}"
        if offset is not None:
            text += f" after skipping {self._literal(offset.expression)}"
        return text


def is_key(node: Any) -> bool:
    """Whether a join is by equal columns."""
    if isinstance(node, exp.And):
        return is_key(node.this) and is_key(node.expression)
    if isinstance(node, exp.Paren):
        return is_key(node.this)
    return (
        isinstance(node, exp.EQ)
        and isinstance(node.this, exp.Column)
        and isinstance(node.expression, exp.Column)
    )
