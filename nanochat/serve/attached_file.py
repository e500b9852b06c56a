"""Files that people attach to a question: read as text, put before the question, cut where the
context ends. What cannot be read is refused by name, what is cut is counted: nothing is ignored
silently.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanochat.serve.work.served_model import ModelCard

MOST_BYTES = 20 << 20
MOST_CHARACTERS = 4_000_000
PDF_TIME_S = 30.0
PDF_READER = Path(__file__).with_name("pdf_reader.py")
MEDIA_TYPES = {"md": "text/markdown", "markdown": "text/markdown", "csv": "text/csv"}
BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
CUT = "\n[the rest of the file did not fit]"


@dataclass(frozen=True, kw_only=True)
class AttachedFile:
    """A file as text. `notes` are what a person should know about how it was read."""

    name: str
    media_type: str
    text: str
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A file as it goes before a question, as far as there was room for it. `tokens` it takes,
    `cut_tokens` left out, `characters` of the file that are in it (None: all).
    """

    text: str
    tokens: int
    cut_tokens: int = 0
    characters: int | None = None


def read_attached(name: str, data: bytes) -> AttachedFile:
    """Text, Markdown, CSV, source code or PDF as text. ValueError says what to do about a file that
    is none of them, empty, damaged or too large.
    """
    name = clean_name(name)
    if len(data) > MOST_BYTES:
        size_mib = len(data) / (1 << 20)
        raise ValueError(f"{name}: {size_mib:.0f} MiB; attach at most {MOST_BYTES >> 20} MiB")
    notes: tuple[str, ...] = ()
    if data.startswith(b"%PDF-") or name.lower().endswith(".pdf"):
        media_type = "application/pdf"
        text, notes = read_pdf(name, data)
    else:
        media_type = MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "text/plain")
        text = read_text(name, data)
    if not text.strip():
        raise ValueError(f"{name}: there is no text in it")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{name}: {len(text)} characters; attach at most {MOST_CHARACTERS}")
    return AttachedFile(
        name=name, media_type=media_type, text=text, size_bytes=len(data), notes=notes
    )


def clean_name(name: str) -> str:
    """A file's name without folders and control characters, at most 120 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(character for character in last if character.isprintable()).strip()
    return kept[-120:] or "file"


def read_text(name: str, data: bytes) -> str:
    """Decode text in whatever encoding it is. ValueError when it is no text."""
    encoding = next((known for mark, known in BOMS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = "" if encoding or b"\0" in data else guessed(data)
        if not text:
            raise not_text(name) from None
    if "\0" in text:
        raise not_text(name)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def guessed(data: bytes) -> str:
    """Text in an older encoding; empty when it is none."""
    from charset_normalizer import from_bytes

    best = from_bytes(data[: 1 << 16]).best()
    if best is None:
        return ""
    try:
        return data.decode(best.encoding)
    except UnicodeDecodeError:
        return ""


def not_text(name: str) -> ValueError:
    return ValueError(
        f"{name}: not a file that can be read here; attach text, Markdown, CSV, source code or PDF"
    )


def read_pdf(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """(text, notes), read in a process of its own with limits on time and memory, as a PDF can be
    made to take both. ValueError when it is damaged, locked, or holds pictures only.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(PDF_READER)],
            input=data,
            capture_output=True,
            timeout=PDF_TIME_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{name}: the PDF took longer than {PDF_TIME_S:.0f} s to read") from None
    said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if done.returncode:
        raise ValueError(f"{name}: the PDF cannot be read: {said[:200] or 'it is damaged'}")
    text = done.stdout.decode("utf-8", "replace").replace("\0", "")
    if not text.strip():
        raise ValueError(
            f"{name}: the PDF holds no text, only pictures; run text recognition (OCR) over it"
        )
    return text, (said,) if said else ()


def with_file(name: str, text: str, characters: int | None = None) -> str:
    """What a model is given of a file: all of it, or so many characters and that it was cut."""
    if characters == 0:
        return f'[The file "{name}" did not fit.]\n\n'
    kept = text if characters is None else text[:characters] + CUT
    return f'File "{name}":\n{kept}\nEnd of the file "{name}".\n\n'


def fit_files(
    card: ModelCard, files: Sequence[tuple[str, str]], room_tokens: float
) -> list[Fitted]:
    """The (name, text) of files as they go before a question, whole as long as there is room, cut
    at their ends from then on.
    """
    fitted = []
    for name, text in files:
        whole = with_file(name, text)
        tokens = card.count_tokens(whole)
        if tokens <= room_tokens:
            fitted.append(Fitted(text=whole, tokens=tokens))
        else:
            fitted.append(cut_file(card, name, text, int(room_tokens)))
        room_tokens -= fitted[-1].tokens
    return fitted


def cut_file(card: ModelCard, name: str, text: str, room_tokens: int) -> Fitted:
    """As much of a file's beginning as there is room for; at least that it is missing."""
    kept = card.beginning(text, room_tokens - card.count_tokens(with_file(name, CUT)))
    shown = with_file(name, text, len(kept))
    return Fitted(
        text=shown,
        tokens=card.count_tokens(shown),
        cut_tokens=card.count_tokens(text) - card.count_tokens(kept),
        characters=len(kept),
    )
