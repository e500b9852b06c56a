"""`nanochat data check FILE`: is this file fit for training, and on what exactly would be
trained?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nanochat.config import Positional
from nanochat.dataset.conversations import FileContents, scan_conversations, write_conversations
from nanochat.runtime.printable import printable
from nanochat.tokenizer import Tokenizer, open_tokenizer
from nanochat.tokenizer.chat_format import is_trained, visualize

PREVIEW_TOKENS = 400


@dataclass
class DataCheckConfig:
    """Check a file of conversations and show what is trained on."""

    file: Positional[str]
    """JSONL (either form, ShareGPT or Alpaca) or a JSON list."""
    convert: str | None = None
    """Write the good conversations to this file, in the {"messages": ...} form."""
    tokenizer: str | None = None
    """A directory or a tiktoken name; default: the trained one."""
    preview: int = 1
    """Conversations to show."""
    max_problems: int = 50
    """Bad lines to list; all are counted."""
    sequence_len: int = 2048
    """Context length that conversations are compared with."""

    def problems(self) -> list[str]:
        found = [
            f"--{name.replace('_', '-')}={getattr(self, name)}: must be {least} or more"
            for name, least in (("preview", 0), ("max_problems", 1), ("sequence_len", 1))
            if getattr(self, name) < least
        ]
        if self.convert is not None and Path(self.convert).resolve() == Path(self.file).resolve():
            found.append(f"--convert={self.convert}: is the checked file itself; name another file")
        return found


def data_check(cfg: DataCheckConfig) -> int:
    """Print the findings; 0 when every line is good, 1 otherwise. ValueError when the file cannot
    be read.
    """
    if problems := cfg.problems():
        raise ValueError("\n".join(problems))
    contents = scan_conversations(cfg.file)
    tokenizer, note = _tokenizer(cfg.tokenizer)
    for problem in contents.problems[: cfg.max_problems]:
        print(printable(problem))
    if len(contents.problems) > cfg.max_problems:
        print(
            f"... and {len(contents.problems) - cfg.max_problems:,} more bad lines "
            "(--max-problems shows more)"
        )
    for what in contents.notes():
        print(printable(what))
    if contents.conversations:
        unit = "bytes" if note else "tokens"
        print("\n".join(counts(contents, tokenizer, cfg.sequence_len, unit)))
    print("".join(f"{line}\n" for line in sql_split(contents)), end="")
    if note:
        print(note)
    _preview(contents, tokenizer, cfg.preview)
    if cfg.convert is not None and contents.conversations:
        write_conversations(cfg.convert, contents.conversations)
        print(f"wrote {len(contents.conversations):,} conversations to {cfg.convert}")
    bad = len(contents.problems)
    print(
        f"{cfg.file}: {len(contents.conversations):,} good, {bad:,} bad"
        + ("" if bad else ": ready for --data")
    )
    return 1 if bad else 0


def counts(contents: FileContents, tokenizer: Tokenizer, sequence_len: int, unit: str) -> list[str]:
    """The numbers of a file, one line each: conversations and their forms, repetitions, marked
    answers, tokens (`unit`), trained tokens, those longer than sequence_len.
    """
    rows = contents.conversations
    rendered = [tokenizer.render_conversation(row) for row in rows]
    lengths = [len(ids) for ids, _ in rendered]
    messages = [message for row in rows for message in row["messages"]]
    forms = ", ".join(f"{number:,} {form}" for form, number in sorted(contents.forms.items()))
    repeated = len(rows) - len({json.dumps(row, sort_keys=True) for row in rows})
    unlearnt = sum(not is_trained(message) for message in messages)
    trained = sum(sum(mask) for _, mask in rendered)
    share = 100 * trained / max(1, sum(lengths))
    too_long = sum(length > sequence_len for length in lengths)
    told = [f"conversations  {len(rows):,} ({forms}), {len(messages):,} messages"]
    if repeated:
        told.append(f"duplicates     {repeated:,} exact repetitions (kept)")
    if unlearnt:
        told.append(f"not learnt     {unlearnt:,} answers marked so (train: false, weight: 0)")
    told.append(f"{unit:14} {sum(lengths):,}, longest conversation {max(lengths):,}")
    told.append(f"trained {unit:6} {trained:,} ({share:.1f}%: what the assistant says)")
    if too_long:
        told.append(
            f"too long       {too_long:,} exceed {sequence_len:,} {unit} and are cut at the end"
        )
    return told


def sql_split(contents: FileContents) -> list[str]:
    """How many query shapes a file of `nanochat sql build` has, and how many of them are also among
    those that its NAME.test.jsonl examines; no lines for other files.
    """
    shapes = {about["shape"] for about in contents.sql if about and "shape" in about}
    if not shapes:
        return []
    told = [f"SQL            {sum(map(bool, contents.sql)):,} queries of {len(shapes):,} shapes"]
    beside = contents.path.with_suffix(f".test{contents.path.suffix}")
    if beside.is_file():
        examined = {about["shape"] for about in scan_conversations(beside).sql if about}
        told.append(
            f"split          {len(examined):,} shapes in {beside.name}, "
            f"{len(shapes & examined):,} on both sides"
        )
    return told


def _tokenizer(name: str | None) -> tuple[Tokenizer, str]:
    try:
        return open_tokenizer(name), ""
    except ValueError as error:
        if name is not None:
            raise
        return Tokenizer.byte_level(), f"counted in bytes, not tokens: {error}"


def _preview(contents: FileContents, tokenizer: Tokenizer, number: int) -> None:
    if not contents.conversations or not number:
        return
    from rich.console import Console

    # No emoji codes, and what would steer the terminal as escapes: the text is somebody else's.
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    console.print("preview: [green]green is trained on[/green], [red]red is only read[/red]")
    for conversation in contents.conversations[:number]:
        ids, mask = tokenizer.render_conversation(conversation, PREVIEW_TOKENS)
        console.print(
            printable(visualize(tokenizer, ids, mask), keep="\n")
            + ("[dim] ...[/dim]" if len(ids) == PREVIEW_TOKENS else "")
        )
