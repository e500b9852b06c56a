"""The report as one HTML file that needs nothing else: pictures inside, no script, no address on a
network.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence

from nanochat.report.blocks import Block, Details, Heading, Image, SampleBlock, Table, Text

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --strong: #2a6fb0; }
@media (prefers-color-scheme: dark) { :root { --strong: #7db8ee; } }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; }
body { margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .75rem; } h1 { margin-top: 0; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
nav ul { columns: 2; padding-left: 1.2rem; } a { color: var(--strong); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; }
th, td { text-align: left; vertical-align: top; }
.num td + td, .num th + th { text-align: right; padding: .3rem 0 .3rem 1.2rem; }
td { overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
figure { margin: 1rem 0; }
.sample { border: 1px solid var(--line); border-radius: 6px; margin: .75rem 0; overflow: hidden; }
.sample p { margin: 0; padding: .3rem .75rem; font-size: .85rem; background: var(--soft); }
.sample pre { margin: 0; padding: .5rem .75rem; font-size: .9rem; }
.sample pre { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--strong); }
"""
# A second lock, should an escape be missed.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, blocks: Sequence[Block]) -> str:
    """A complete HTML document of the blocks, with a table of contents over the second-level
    headings.
    """
    names: dict[str, int] = {}
    body, contents = [], []
    for block in blocks:
        if isinstance(block, Heading):
            anchor = _anchor(block.text, names)
            body.append(f'<h{block.level} id="{anchor}">{_text(block.text)}</h{block.level}>')
            if block.level == 2:
                contents.append(f'<li><a href="#{anchor}">{_text(block.text)}</a></li>')
            if block.level == 1:
                body.append("<!-- contents -->")
        else:
            body.append(_block(block))
    nav = f'<nav aria-label="Contents"><ul>{"".join(contents)}</ul></nav>' if contents else ""
    main = "\n".join(body).replace("<!-- contents -->", nav, 1)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{main}\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escaped, and without control characters, which HTML does not allow and terminals act on."""
    return html.escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", str(text)))


def _anchor(text: str, used: dict[str, int]) -> str:
    """A link target for a heading, made different from earlier ones of the same text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}-{used[name]}"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level}>{_text(block.text)}</h{block.level}>"
    if isinstance(block, Text):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Image):
        data = base64.b64encode(block.path.read_bytes()).decode("ascii")
        return f'<figure><img alt="{_text(block.alt)}" src="data:image/png;base64,{data}"></figure>'
    if isinstance(block, SampleBlock):
        note = f" · {_text(block.note)}" if block.note else ""
        return (
            f'<div class="sample"><p>Prompt{note}</p><pre>{_text(block.prompt)}</pre>'
            f"<p>Answer</p><pre>{_text(block.completion)}</pre></div>"
        )
    assert isinstance(block, Details)
    inner = "\n".join(_block(b) for b in block.blocks)
    return f"<details><summary>{_text(block.summary)}</summary>\n{inner}\n</details>"


def _table(block: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in block.header)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in block.rows
    )
    head = f"<thead><tr>{head}</tr></thead>\n" if any(block.header) else ""
    kind = ' class="num"' if block.numeric else ""
    return f'<div class="wide"><table{kind}>{head}<tbody>\n{rows}\n</tbody></table></div>'
