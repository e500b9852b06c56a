"""Files that are attached: what can be read, what is refused, and what was cut."""

from __future__ import annotations

import io
import zlib

import pytest

from nanochat.serve.attached_file import fit_files, read_attached, with_file
from nanochat.serve.work.served_model import ModelCard
from nanochat.tokenizer import Tokenizer

CARD = ModelCard(name="sft:d2", tokenizer=Tokenizer.byte_level(), context=256, vocab_size=300)


def pdf(*lines: str, filters: str = "") -> bytes:
    """A PDF of one page for each line."""
    count = len(lines)
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(count))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {count} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, line in enumerate(lines):
        content = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} {filters} >>\nstream\n{content}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, text in enumerate(objects, 1):
        places.append(out.tell())
        out.write(f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1"))
    table = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.write("".join(f"{place:010d} 00000 n \n" for place in places).encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n".encode())
    out.write(b"%%EOF")
    return out.getvalue()


READ = {
    "a.txt": ("Grüße\r\nß\r".encode(), "text/plain", "Grüße\nß\n"),
    "b.md": (b"\xef\xbb\xbf# Title", "text/markdown", "# Title"),
    "c.CSV": ("a;b\n1;2\n".encode("utf-16"), "text/csv", "a;b\n1;2\n"),
    "old.txt": (
        "Die Lösung für größere Flüsse heißt Brücke, sagt das Mädchen.".encode("latin-1"),
        "text/plain",
        "Die Lösung für größere Flüsse heißt Brücke, sagt das Mädchen.",
    ),
    "query.sql": (b"select 1;", "text/plain", "select 1;"),
}


@pytest.mark.parametrize("name", READ)
def test_text_is_read_in_any_encoding(name):
    data, media_type, text = READ[name]
    read = read_attached(name, data)
    assert (read.name, read.media_type, read.text, read.notes) == (name, media_type, text, ())
    assert read.size_bytes == len(data)


def test_a_pdf_is_read_page_by_page():
    pytest.importorskip("pypdf", reason="the extra serve is not installed")
    read = read_attached("Report.pdf", pdf("The answer is 42.", "Second page."))
    assert read.media_type == "application/pdf" and read.notes == ()
    assert read.text.split("\n\n") == ["The answer is 42.", "Second page."]
    gaps = read_attached("scan", pdf("Words.", ""))
    assert gaps.notes == ("1 of 2 pages hold no text, perhaps pictures",)


REFUSED = {
    "photo.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)), "text, Markdown, CSV"),
    "table.xlsx": (b"PK\x03\x04" + zlib.compress(b"x" * 999) + b"\0", "text, Markdown, CSV"),
    "nul.txt": (b"a\0b", "text, Markdown, CSV"),
    "half.txt": (b"\xff\xfea", "text, Markdown, CSV"),
    "empty.txt": (b" \n", "no text in it"),
    "large.txt": (b"a" * ((20 << 20) + 1), "at most 20 MiB"),
    "broken.pdf": (b"%PDF-1.4\nnothing", "cannot be read"),
    "named.pdf": (b"just text", "cannot be read"),
    "scan.pdf": (pdf("", ""), "OCR"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name):
    if name.endswith(".pdf"):
        pytest.importorskip("pypdf", reason="the extra serve is not installed")
    data, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as refused:
        read_attached(name, data)
    assert str(refused.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "name, kept",
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\a\\b.txt", "b.txt"),
        ("a\n\x1b[1mb", "a[1mb"),
        ("/", "file"),
    ],
)
def test_names_lose_folders_and_control_characters(name, kept):
    assert read_attached(name, b"x").name == kept


def test_files_go_in_whole_until_the_room_ends():
    files = [("a.txt", "first"), ("b.txt", "x" * 500), ("c.txt", "late")]
    whole = fit_files(CARD, files, 10_000)
    assert whole[0].text == 'File "a.txt":\nfirst\nEnd of the file "a.txt".\n\n'
    assert [file.cut_tokens for file in whole] == [0, 0, 0]
    assert all(file.tokens == CARD.count_tokens(file.text) for file in whole)
    for room in range(100, 700, 7):
        fitted = fit_files(CARD, files, room)
        missing = sum(file.tokens for file in fitted if file.characters == 0)
        assert sum(file.tokens for file in fitted) <= room + missing
        for (name, text), file in zip(files, fitted, strict=True):
            kept = text if file.characters is None else text[: file.characters]
            assert kept in file.text and len(kept) + file.cut_tokens == len(text)
            assert file.characters is None or "did not fit" in file.text
            assert file.text == with_file(name, text, file.characters)


def test_a_file_without_any_room_is_named():
    (file,) = fit_files(CARD, [("a.txt", "x" * 50)], 0)
    assert file.text == '[The file "a.txt" did not fit.]\n\n'
    assert (file.cut_tokens, file.characters) == (50, 0)


def test_a_cut_file_says_so_to_the_model():
    (cut,) = fit_files(CARD, [("a.txt", "é" * 300)], 200)
    assert "\n[the rest of the file did not fit]\nEnd of the file" in cut.text
    assert "\ufffd" not in cut.text and 0 < cut.cut_tokens < 600 and 190 < cut.tokens <= 200


def test_files_for_a_remote_model_are_counted_in_bytes():
    remote = ModelCard(
        name="up:m", tokenizer=Tokenizer.byte_level(), context=0, vocab_size=1, remote=True
    )
    (whole,) = fit_files(remote, [("a.txt", "x" * 5000)], float("inf"))
    assert whole.characters is None and 1250 <= whole.tokens < 1300
    (cut,) = fit_files(remote, [("a.txt", "é" * 5000)], 500)
    assert 400 < cut.tokens <= 500 and cut.cut_tokens + cut.tokens > 2400
