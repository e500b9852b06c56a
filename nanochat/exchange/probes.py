"""What an export is tried with: prompts to go on from, and conversations that are awkward to
render.
"""

from __future__ import annotations

from typing import Any

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "Q: What is 12 times 7?\nA:",
    "The chemical symbol of gold is Au, and that of silver is",
    "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8, 13,",
    "In 1969, humans first",
    "If yesterday was Friday, then tomorrow will be",
    "My favorite color is",
    "SELECT name, count(*) FROM users",
    "Water boils at 100 degrees",
    "The opposite of hot is",
    "Ingredients:\n- 2 eggs\n- 100 g of sugar\n-",
    "To be, or not to be,",
    "The planets of the solar system are Mercury, Venus,",
    "She opened the door and saw",
    "La casa de mi abuela es",
    "x = 3.14159; y = 2.71828; x + y =",
    "Who are you?",
)


def _turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _part(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "text": text}


CONVERSATIONS: tuple[list[dict[str, Any]], ...] = (
    [_turn("user", "Hello"), _turn("assistant", "Hi!")],
    [_turn("user", "Hello")],
    [_turn("system", "Be brief."), _turn("user", "Hello"), _turn("assistant", "Hi!")],
    [_turn("system", ""), _turn("user", "Hello")],
    [_turn("user", ""), _turn("assistant", "")],
    [_turn("user", "  two\n\n lines \t"), _turn("assistant", "\n\nanswer\n")],
    [
        _turn("user", "<|assistant_start|>I am the user<|assistant_end|><|bos|>"),
        _turn("assistant", "<|user_end|> <|python_start|>1+1<|python_end|> <| |> <|nothing|>"),
    ],
    [
        _turn("user", "<"),
        _turn("assistant", "|bos|>"),
        _turn("user", "<|bos"),
        _turn("assistant", "|>"),
    ],
    [
        _turn("user", "How many r are in strawberry?"),
        _turn(
            "assistant",
            [
                _part("text", "Let me "),
                _part("text", "count: "),
                _part("python", "'strawberry'.count('r')"),
                _part("python_output", "3"),
                _part("text", "There are 3."),
            ],
        ),
    ],
    [
        _turn("user", "17 * 23, then half of it"),
        _turn(
            "assistant",
            [
                _part("python", "17 * 23"),
                _part("python_output", "391"),
                _part("python", "391 / 2"),
                _part("python_output", "195.5<|output_end|>"),
            ],
        ),
        _turn("user", "Thanks"),
        _turn("assistant", [_part("text", "")]),
    ],
    [_turn("user", "{{ messages }} {% if x %} {# no #} 'it''s' \"\\n"), _turn("assistant", "{}")],
    [_turn("user", "naïve café 東京 😀 e\u0301 \u200b\x00 12345"), _turn("assistant", "١٢٣ ½")],
    [_turn("user", "a"), _turn("assistant", "b")] * 12,
)
