"""Run as a process: a PDF on standard input, its text on standard output, a note or the reason of a
failure as the last line of standard error.
"""

from __future__ import annotations

import contextlib
import io
import sys

MEMORY_BYTES = 1 << 30
CPU_S = 25
MOST_PAGES = 2000


def limit() -> None:
    """Limits of this process; nothing on systems without them."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> int:
    limit()
    try:
        from pypdf import PdfReader
    except ImportError:
        print('pypdf is not installed: pip install "nanochat[serve]"', file=sys.stderr)
        return 1
    import logging

    logging.disable(logging.CRITICAL)  # it tells of every oddity
    try:
        reader = PdfReader(io.BytesIO(sys.stdin.buffer.read()))
        if reader.is_encrypted and not reader.decrypt(""):
            print("it is locked by a password", file=sys.stderr)
            return 1
        pages = [page.extract_text() for page in reader.pages[:MOST_PAGES]]
    except Exception as error:  # whatever a damaged file makes of it
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        return 1
    sys.stdout.buffer.write("\n\n".join(pages).encode("utf-8", "replace"))
    empty = sum(not page.strip() for page in pages)
    if len(reader.pages) > MOST_PAGES:
        print(
            f"only the first {MOST_PAGES} of {len(reader.pages)} pages were read", file=sys.stderr
        )
    elif empty:
        print(f"{empty} of {len(pages)} pages hold no text, perhaps pictures", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
