"""Documents about numbers: equations, counting, order, even and odd, small tables, numbers in
words.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable

from nanochat.dataset.embedded_world.grammar import capital, in_words
from nanochat.dataset.embedded_world.split import held_out_pair
from nanochat.dataset.embedded_world.tables import people, say, wordings

# How often each form of an equation is drawn, added up; the last one has the rest.
_FORMS = (0.6, 0.69, 0.75, 0.82, 0.9)


def equation(rng: random.Random) -> tuple[int, int, int, int]:
    """(a, x, b, c) with a*x + b = c, few enough (270) that the CPU recipe's model meets each of
    them often.
    """
    a, x, b = rng.randint(2, 6), rng.randint(1, 6), rng.randint(1, 9)
    return a, x, b, a * x + b


def equations(rng: random.Random) -> str:
    """Small equations and their solutions, one to a line or in a row."""
    lines = []
    for _ in range(rng.randint(5, 9)):
        a, x, b, c = equation(rng)
        form = wordings("equation")[bisect_right(_FORMS, rng.random())]
        lines.append(form.format(a=a, x=x, b=b, c=c, ax=a * x, xb=x + b))
    return ("\n" if rng.random() < 0.7 else " ").join(lines)


def solved_equations(rng: random.Random) -> str:
    """Equations solved step by step, where no step is a sum that the exam asks for."""
    parts: list[str] = []
    wanted = rng.randint(2, 4)
    while len(parts) < wanted:
        a, x, b, c = equation(rng)
        if not (held_out_pair(c, b) or held_out_pair(a * x, b) or held_out_pair(a * x, a)):
            parts.append(say(rng, "equation.solved", a=a, x=x, b=b, c=c, ax=a * x))
    return "\n".join(parts)


def counting(rng: random.Random) -> str:
    """Counting up, down and in steps."""
    start, step = rng.randint(0, 80), rng.choice((1, 1, 1, 2, 3, 5, 10))
    up = [start + step * index for index in range(rng.randint(8, 16))]
    even = 2 * (start // 2)
    slots = {
        "start": start,
        "step": in_words(step),
        "up": _listed(up),
        "top": start + 12,
        "down": _listed(range(start + 12, start, -1)),
        "even": _listed(range(even, start + 16, 2)),
        "odd": _listed(range(even + 1, start + 16, 2)),
        "name": rng.choice(people("she")),
        "words": ", ".join(map(in_words, up[:8])),
    }
    parts = [wording.format_map(slots) for wording in wordings("counting")]
    rng.shuffle(parts)
    return " ".join(parts[: rng.randint(1, 2)])


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def order(rng: random.Random) -> str:
    """Which number comes after, before, is greater, is even."""
    lines = []
    for _ in range(rng.randint(4, 9)):
        n = rng.randint(1, 99)
        other = rng.choice([m for m in (rng.randint(1, 99), n + 1, n + 7) if m != n])
        slots = {
            "n": n,
            "next": n + 1,
            "last": n - 1,
            "other": other,
            "low": min(n, other),
            "high": max(n, other),
            "parity": "odd" if n % 2 else "even",
            "a_parity": "an odd" if n % 2 else "an even",
        }
        lines.append(say(rng, "order", **slots))
    return " ".join(lines)


def small_sums(rng: random.Random) -> str:
    """Sums, differences, products and quotients that everybody knows by heart."""
    lines = []
    for _ in range(rng.randint(5, 10)):
        x, y = rng.randint(0, 12), rng.randint(1, 10)
        product, total = x * y, x + y
        easy = f"{product} divided by {y} is {x}.", f"{total} - {y} = {x}"
        slots = {
            "x": x,
            "y": y,
            "sum": total,
            "product": product,
            "twice": 2 * x,
            "x_words": capital(in_words(x)),
            "y_words": in_words(y),
            "sum_words": in_words(total),
            "divided": easy[0] if product <= 20 else f"{x} times {y} makes {product}.",
            "taken": easy[1] if total <= 20 else f"{y} plus {x} makes {total}.",
        }
        lines.append(say(rng, "sums", **slots))
    return "\n".join(lines)


def table(rng: random.Random) -> str:
    """One row of the times table, or of a table of sums."""
    factor = rng.randint(1, 10)
    if rng.random() < 0.6:
        lines = [f"{factor} * {n} = {factor * n}" for n in range(1, 11)]
        return "\n".join([f"The table of {factor}:", *lines])
    return "\n".join(
        [f"Sums with {factor}:", *(f"{factor} + {n} = {factor + n}" for n in range(1, 11))]
    )


def number_words(rng: random.Random) -> str:
    """Numbers in digits and in words."""
    lines = []
    for _ in range(rng.randint(4, 9)):
        n = rng.randint(0, 99) if rng.random() < 0.8 else rng.randint(100, 999)
        lines.append(say(rng, "number.words", n=n, words=in_words(n)))
    return "\n".join(lines)


def sharing(rng: random.Random) -> str:
    """A tiny story with a small sum in it."""
    name, friend = rng.sample(people(rng.choice(("she", "he"))), 2)
    food = rng.choice(("apples", "pears", "plums", "nuts", "coins", "books", "balls"))
    x, y = rng.randint(1, 10), rng.randint(1, 10)
    z = rng.randint(1, x + y)
    rest = x + y - z
    slots = {
        "name": name,
        "friend": friend,
        "food": food,
        "x": x,
        "y": y,
        "z": z,
        "sum": x + y,
        "old": rng.choice(("a", "an old", "a big")),
        "left": f"Then {rest} of the {food} are left" if rest else "There is nothing left in it",
    }
    return " ".join(wordings("sharing")).format_map(slots)


KINDS: dict[Callable[[random.Random], str], float] = {
    equations: 0.42,
    solved_equations: 0.12,
    counting: 0.08,
    order: 0.1,
    small_sums: 0.12,
    table: 0.05,
    number_words: 0.08,
    sharing: 0.09,
}
