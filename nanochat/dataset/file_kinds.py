"""What a file is by its first bytes, for errors about files that are not what they should be."""

from __future__ import annotations

import contextlib
import stat
import zipfile
from pathlib import Path

# First bytes, what it is, what to do.
UNPACK = "unpack it and give the file inside"
MAGIC = (
    (b"PAR1", "a parquet file", "give it to `dataset --data`, or write its rows as JSONL"),
    (b"\x1f\x8b", "gzip-compressed", f"{UNPACK} (`gunzip -k`)"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", f"{UNPACK} (`unzstd`)"),
    (b"\xfd7zXZ\0", "xz-compressed", f"{UNPACK} (`unxz -k`)"),
    (b"BZh91AY", "bzip2-compressed", f"{UNPACK} (`bunzip2 -k`)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"\x04\x22\x4d\x18", "lz4-compressed", UNPACK),
    (b"PK\x03\x04", "a zip archive", f"{UNPACK} (`unzip`)"),
    (b"%PDF-", "a PDF document", "extract its text into a .txt file (`pdftotext`)"),
    (b"{\\rtf", "an RTF document", "save it as plain text"),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save it as plain text or CSV"),
    (b"ARROW1", "an Arrow file", "write its rows as JSONL or parquet"),
    (b"SQLite format 3", "an SQLite database", "export its rows as JSONL"),
    (b"\x89HDF", "an HDF5 file", "export its rows as JSONL"),
    (b"\x80\x04\x95", "a Python pickle", "write its rows as JSONL"),
)
# Names in zip archives that are documents.
ZIPPED = (
    ("word/document.xml", "a Word document (docx)"),
    ("xl/workbook.xml", "an Excel sheet (xlsx)"),
    ("ppt/presentation.xml", "a PowerPoint file (pptx)"),
    ("META-INF/container.xml", "an EPUB book"),
    ("content.xml", "an OpenDocument file"),
)


def what_it_is(path: Path) -> str:
    """`a parquet file; give it to ...` for a file of a known binary kind, or ""."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK\x03\x04"):
        with contextlib.suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for member, kind in ZIPPED:
                if member in names:
                    return f"{kind}; save it as plain text"
    if head[257:262] == b"ustar":
        return f"a tar archive; {UNPACK} (`tar -xf`)"
    return next((f"{kind}; {fix}" for magic, kind, fix in MAGIC if head.startswith(magic)), "")


def special_kind(path: Path) -> str:
    """What a path is that is neither a file nor a folder, or "": reading a FIFO would wait for
    ever.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    kinds = ((stat.S_ISFIFO, "a pipe (FIFO)"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")
