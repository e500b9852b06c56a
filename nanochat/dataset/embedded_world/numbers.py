"""Documents about numbers: equations, counting, order, even and odd, small tables, numbers in
words.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from nanochat.dataset.embedded_world.grammar import capital, in_words, joined
from nanochat.dataset.embedded_world.split import held_out_pair
from nanochat.dataset.embedded_world.tables import read_words


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
        form = rng.random()
        if form < 0.6:
            lines.append(f"If {a}*x + {b} = {c}, then x is {x}.")
        elif form < 0.69:
            lines.append(f"If {a}*x = {a * x}, then x is {x}.")
        elif form < 0.75:
            lines.append(f"If x + {b} = {x + b}, then x is {x}.")
        elif form < 0.82:
            lines.append(f"The solution of {a}*x + {b} = {c} is x = {x}.")
        elif form < 0.9:
            lines.append(f"If {a}*x + {b} = {c}, then {a}*x is {a * x} and x is {x}.")
        else:
            lines.append(f"Let {a}*x + {b} be {c}. Then x must be {x}.")
    return ("\n" if rng.random() < 0.7 else " ").join(lines)


def solved_equations(rng: random.Random) -> str:
    """Equations solved step by step, where no step is a sum that the exam asks for."""
    parts: list[str] = []
    wanted = rng.randint(2, 4)
    while len(parts) < wanted:
        a, x, b, c = equation(rng)
        if held_out_pair(c, b) or held_out_pair(a * x, b) or held_out_pair(a * x, a):
            continue
        parts.append(
            rng.choice(
                (
                    f"Solve {a}*x + {b} = {c}. Take {b} from {c}: {a}*x = {a * x}. Divide "
                    f"{a * x} by {a}: x = {x}. "
                    f"If {a}*x + {b} = {c}, then x is {x}.",
                    f"What is x if {a}*x + {b} = {c}? First, {c} - {b} = {a * x}, so {a}*x = "
                    f"{a * x}. "
                    f"Then {a * x} / {a} = {x}, so x is {x}.",
                    f"If {a}*x + {b} = {c}, then x is {x}. Check: {a} * {x} = {a * x} and "
                    f"{a * x} + {b} = {c}.",
                )
            )
        )
    return "\n".join(parts)


def counting(rng: random.Random) -> str:
    """Counting up, down and in steps."""
    start, step = rng.randint(0, 80), rng.choice((1, 1, 1, 2, 3, 5, 10))
    up = [start + step * index for index in range(rng.randint(8, 16))]
    down = list(range(start + 12, start, -1))
    even, odd = (
        list(range(2 * (start // 2), start + 16, 2)),
        list(range(2 * (start // 2) + 1, start + 16, 2)),
    )
    name = rng.choice(read_words("stories.txt", "names.she"))
    parts = [
        f"Counting from {start} by {in_words(step)}: {', '.join(map(str, up))}.",
        f"Counting down from {start + 12}: {', '.join(map(str, down))}.",
        f"These numbers are even: {', '.join(map(str, even))}. These numbers are odd: "
        f"{', '.join(map(str, odd))}.",
        f"{name} counts: {', '.join(in_words(number) for number in up[:8])}.",
    ]
    rng.shuffle(parts)
    return " ".join(parts[: rng.randint(1, 2)])


def order(rng: random.Random) -> str:
    """Which number comes after, before, is greater, is even."""
    lines = []
    for _ in range(rng.randint(4, 9)):
        number = rng.randint(1, 99)
        other = rng.choice(
            [value for value in (rng.randint(1, 99), number + 1, number + 7) if value != number]
        )
        low, high = sorted((number, other))
        lines.append(
            rng.choice(
                (
                    f"After {number} comes {number + 1}.",
                    f"The number after {number} is {number + 1}.",
                    f"The number before {number} is {number - 1}.",
                    f"{number} comes right before {number + 1}.",
                    f"{high} is greater than {low}.",
                    f"{low} is less than {high}.",
                    f"Which is greater, {number} or {other}? {high} is greater.",
                    f"{number} is {'an odd' if number % 2 else 'an even'} number.",
                    f"Is {number} even or odd? {number} is {'odd' if number % 2 else 'even'}.",
                )
            )
        )
    return " ".join(lines)


def small_sums(rng: random.Random) -> str:
    """Sums, differences, products and quotients that everybody knows by heart."""
    lines = []
    for _ in range(rng.randint(5, 10)):
        x, y = rng.randint(0, 12), rng.randint(1, 10)
        lines.append(
            rng.choice(
                (
                    f"{x} + {y} = {x + y}",
                    f"{x} plus {y} is {x + y}.",
                    f"{capital(in_words(x))} and {in_words(y)} make {in_words(x + y)}.",
                    f"{x * y} divided by {y} is {x}."
                    if x * y <= 20
                    else f"{x} times {y} makes {x * y}.",
                    f"{x + y} - {y} = {x}" if x + y <= 20 else f"{y} plus {x} makes {x + y}.",
                    f"{x} * {y} = {x * y}",
                    f"{x} times {y} is {x * y}.",
                    f"Twice {x} is {2 * x}. Half of {2 * x} is {x}.",
                )
            )
        )
    return "\n".join(lines)


def table(rng: random.Random) -> str:
    """One row of the times table, or of a table of sums."""
    factor = rng.randint(1, 10)
    if rng.random() < 0.6:
        return f"The table of {factor}:\n" + "\n".join(
            f"{factor} * {n} = {factor * n}" for n in range(1, 11)
        )
    return f"Sums with {factor}:\n" + "\n".join(
        f"{factor} + {n} = {factor + n}" for n in range(1, 11)
    )


def number_words(rng: random.Random) -> str:
    """Numbers in digits and in words."""
    lines = []
    for _ in range(rng.randint(4, 9)):
        number = rng.randint(0, 99) if rng.random() < 0.8 else rng.randint(100, 999)
        lines.append(
            rng.choice(
                (
                    f"{number} is written {in_words(number)}.",
                    f"The number {in_words(number)} is {number}.",
                    f"{number}: {in_words(number)}",
                )
            )
        )
    return "\n".join(lines)


def sharing(rng: random.Random) -> str:
    """A tiny story with a small sum in it."""
    name, friend = rng.sample(read_words("stories.txt", rng.choice(("names.she", "names.he"))), 2)
    food, place = (
        rng.choice(("apples", "pears", "plums", "nuts", "coins", "books", "balls")),
        "basket",
    )
    x, y = rng.randint(1, 10), rng.randint(1, 10)
    z = rng.randint(1, x + y)
    return " ".join(
        (
            f"{name} has {x} {food} in {rng.choice(('a', 'an old', 'a big'))} {place}.",
            f"{friend} puts {y} more into the {place}. {x} plus {y} is {x + y}, so now there are "
            f"{x + y} {food}.",
            f"Later they take {z} of the {food} out of the {place}. "
            f"{capital(_left(x + y - z, food))}.",
            f"{joined([name, friend])} are good at counting.",
        )
    )


def _left(rest: int, things: str) -> str:
    return "there is nothing left in it" if rest == 0 else f"then {rest} of the {things} are left"


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
