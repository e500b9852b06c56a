"""The chat format as a Jinja template, which is how other programs take one.

The template is text that a tokenizer reads, and a user's message is part of that text. Two marks
keep the ids those of our own rendering, which encodes every part by itself:

- `<|` of a message is written with a character in between that no text has, and the tokenizer takes
  it out again after it has looked for special tokens. So what a user spells is never one.
- between two parts of text stands a mark at which the tokenizer cuts.

Both are characters that Unicode keeps out of texts for good (U+FDD0 to U+FDD2).
"""

from __future__ import annotations

from nanochat.tokenizer.special_tokens import (
    ASSISTANT_END,
    ASSISTANT_START,
    BOS,
    OUTPUT_END,
    OUTPUT_START,
    PYTHON_END,
    PYTHON_START,
    USER_END,
    USER_START,
)

SPELLED = "<|"
KEPT_APART = "<\ufdd0|"
PART_MARK = "\ufdd1\ufdd2"

_TEMPLATE = """\
{%- macro plain(text) -%}{{ text@SAFE@ }}{%- endmacro -%}
{%- macro joined(content) -%}
{%- if content is string -%}{{ plain(content) }}
{%- else -%}{%- for part in content -%}
{%- if part.type != 'text' -%}{{ raise_exception('a message that is not the assistant\\'s must \
be text') }}{%- endif -%}
{{ plain(part.text) }}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- set turn = namespace(asked=false, before='', role='') -%}
{{- '@BOS@' -}}
{%- for message in messages -%}
{%- if message.role in ['system', 'developer', 'user'] -%}
{{- '\\n\\n' if turn.asked else '@USER_START@' -}}
{{- joined(message.content) -}}
{%- set turn.asked = true -%}
{%- elif message.role == 'assistant' -%}
{%- if turn.asked -%}{{- '@USER_END@' -}}
{%- elif turn.role == 'assistant' -%}
{{- raise_exception('two assistant messages in a row') -}}
{%- else -%}{{- '@USER_START@@USER_END@' -}}{%- endif -%}
{%- set turn.asked = false -%}
{{- '@ASSISTANT_START@' -}}
{%- if message.content is string -%}{{- plain(message.content) -}}
{%- else -%}
{%- set turn.before = '' -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}
{{- '@PART@' if turn.before == 'text' else '' -}}{{- plain(part.text) -}}
{%- elif part.type == 'python' -%}
{{- '@PYTHON_START@' -}}{{- plain(part.text) -}}{{- '@PYTHON_END@' -}}
{%- elif part.type == 'python_output' -%}
{{- '@OUTPUT_START@' -}}{{- plain(part.text) -}}{{- '@OUTPUT_END@' -}}
{%- else -%}{{- raise_exception('unknown part ' ~ part.type) -}}{%- endif -%}
{%- set turn.before = part.type -%}
{%- endfor -%}
{%- endif -%}
{{- '@ASSISTANT_END@' -}}
{%- else -%}{{- raise_exception('unknown role ' ~ message.role) -}}{%- endif -%}
{%- set turn.role = message.role -%}
{%- endfor -%}
{%- if turn.asked -%}{{- '@USER_END@' -}}{%- endif -%}
{%- if add_generation_prompt and turn.role != 'assistant' -%}
{{- '@ASSISTANT_START@' -}}
{%- endif -%}
"""


def chat_template(marks: bool) -> str:
    """The template; with `marks` for a tokenizer that knows them (see above), else without."""
    words = {
        "SAFE": f" | replace('{SPELLED}', '{KEPT_APART}')" if marks else "",
        "PART": PART_MARK if marks else "",
        "BOS": BOS,
        "USER_START": USER_START,
        "USER_END": USER_END,
        "ASSISTANT_START": ASSISTANT_START,
        "ASSISTANT_END": ASSISTANT_END,
        "PYTHON_START": PYTHON_START,
        "PYTHON_END": PYTHON_END,
        "OUTPUT_START": OUTPUT_START,
        "OUTPUT_END": OUTPUT_END,
    }
    template = _TEMPLATE
    for word, text in words.items():
        template = template.replace(f"@{word}@", text)
    return template
