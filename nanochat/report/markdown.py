"""The report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nanochat.report.blocks import Block, Details, Heading, Image, SampleBlock, Text


def markdown(blocks: Sequence[Block], pictures: str) -> str:
    """The blocks as Markdown; `pictures` is the folder of the images as seen from the file."""
    return "\n\n".join(_markdown(block, pictures) for block in blocks) + "\n"


def _markdown(block: Block, pictures: str) -> str:
    if isinstance(block, Heading):
        return "#" * block.level + " " + escape(block.text)
    if isinstance(block, Text):
        return escape(block.text)
    if isinstance(block, Image):
        return f"![{escape(block.alt)}]({pictures}/{block.path.name})"
    if isinstance(block, SampleBlock):
        note = f"*{escape(block.note)}*\n\n" if block.note else ""
        return f"{note}Prompt:\n\n{fence(block.prompt)}\n\nAnswer:\n\n{fence(block.completion)}"
    if isinstance(block, Details):
        inner = "\n\n".join(_markdown(b, pictures) for b in block.blocks)
        return f"<details><summary>{escape(block.summary)}</summary>\n\n{inner}\n\n</details>"
    align = "---:" if block.numeric else "---"
    header, *rows = ([escape(cell) for cell in line] for line in [block.header, *block.rows])
    lines = [header, ["---"] + [align] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no tags, links, pictures, emphasis or table borders of its
    own.
    """
    line = re.sub(r"[\r\n]+", " ", str(text))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace("\\", "\\\\")
    return re.sub(r"([`|*\[\]])|(?<!\w)_|_(?!\w)", lambda m: "\\" + m.group(0), line)


def fence(text: str) -> str:
    """A code block that its content cannot end: the fence is longer than any run of backticks
    inside.
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}text\n{text}\n{marks}"
