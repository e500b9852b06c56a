"""In which encoding a text file is written: known from its bytes, found out and said, or refused.

UTF-8 and files that begin with a byte order mark are certain. Anything else is judged, mostly by
charset-normalizer, and the encoding taken is told to whoever asked. A file that is UTF-8 but for
some damaged bytes is never read as something else: the error names the place.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 15  # of lines that are not ASCII: enough to tell encodings apart, and quick
JUDGED_BYTES = 64 << 20  # of a file that is not UTF-8
# Bytes beyond ASCII, and different ones, to tell Cyrillic, Thai, Chinese ... from one another.
ENOUGH_BYTES, ENOUGH_KINDS = 16, 5
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDE_MARKS = tuple(mark for mark, codec in MARKS if codec != "utf-8-sig")
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
# Signs and letters that nearly every text has, in whatever script; none is one with its bytes
# swapped.
COMMON = re.compile("[\t\n\r -~\u3000-\u3002\u3008-\u3011\u3040-\u30ff\uff01-\uff5e]")
# Switches to Chinese, Japanese or Korean in a file of seven-bit bytes.
ESCAPES = re.compile(rb"\x1b\$[@ABC)(]|\x1b\([IJ]")
# Where two read a file alike, the first is named.
LATIN = (
    "cp1252 iso8859_15 cp1250 cp1254 cp1257 iso8859_2 iso8859_9 mac_roman cp850 cp852 cp437"
).split()
MULTIBYTE = "gb18030 big5hkscs big5 cp932 euc_jp cp949 iso2022_jp_2 iso2022_kr".split()
CANDIDATES = [
    *LATIN,
    *MULTIBYTE,
    *"cp1251 koi8_r koi8_u cp866 iso8859_5 mac_cyrillic cp1253 iso8859_7".split(),
    *"cp1255 iso8859_8 cp1256 iso8859_6 cp874".split(),
]
# The letters beyond a to z of languages of Latin script, and signs that any text may have.
ALPHABETS = (
    "àâæçéèêëîïôœùûüÿ äöüß áéíñóúüªº àèéìíîòóùú ãáâàçéêíóôõúü åäö åæøéöä éëïóöü áðéíóúýþæö "
    "ąćęłńóśźż áčďéěíňóřšťúůýž áäčďéíĺľňóôŕšťúýž áéíóöőúüű ăâîșşțţ čćđšž çğıiöşüâîû "
    "āčēģīķļņšūž ąčęėįšųūž äõöüšž çëéàèïíòóúü"
).split()
SIGNS = "‘’“”„‚«»‹›–—…•·°§€£©®™ \u00a0²³†‰¿¡"


# Names that people know better.
KNOWN_AS = {
    "gb18030": "GBK",
    "big5hkscs": "Big5",
    "cp932": "Shift-JIS",
    "cp949": "EUC-KR",
    "cp1251": "Windows-1251",
    "cp1252": "Windows-1252",
}


@dataclass(frozen=True, kw_only=True)
class TextEncoding:
    """How to open a file: `open(path, encoding=codec, errors=errors)`. note: what to tell people;
    empty for plain UTF-8.
    """

    codec: str
    errors: str = "strict"
    note: str = ""


def text_encoding(path: Path, asked: str | None = None) -> TextEncoding:
    """How to read a text file. asked: the encoding of files that are not UTF-8; "utf-8" reads
    damaged UTF-8, with U+FFFD for every damaged byte.

    Raises ValueError, with the byte offset, for damaged and for binary files, and when no encoding
    fits well enough.
    """
    with open(path, "rb") as file:
        head = file.read(4)
    for mark, codec in MARKS:
        if head.startswith(mark):
            return _checked(path, codec)
    if asked and codecs.lookup(asked).name == "utf-8":
        return _repaired(path)
    wrong = _first_wrong(path, "utf-8")
    zero, escaped = _survey(path)
    if wrong is None and zero is None and not escaped:
        return TextEncoding(codec="utf-8")
    if asked:
        return _checked(path, asked)
    if found := _wide(path):
        return TextEncoding(codec=found, note=found)
    if zero is not None:
        raise ValueError(
            f"{path}: holds zero bytes, the first at offset {zero}, so it is not a text file; "
            "leave it out, or name its encoding with --encoding=utf-16-le (or -be, or utf-32)"
        )
    return _detected(path, wrong or 0)


def encoding_problem(name: str) -> str:
    """What is wrong with the name of an encoding, or ""."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return f"{name!r} is no encoding; give one such as utf-8, cp1252, gb18030, shift_jis"
    return ""


def _checked(path: Path, codec: str) -> TextEncoding:
    """The encoding, if the whole file is written in it."""
    wrong = _first_wrong(path, codec)
    if wrong is not None:
        raise ValueError(
            f"{path}: damaged {codec} text: the bytes at offset {wrong} are no character; repair "
            "the file, or name its encoding with --encoding"
        )
    return TextEncoding(codec=codec, note="" if codec.startswith("utf-8") else codec)


def _repaired(path: Path) -> TextEncoding:
    damaged = _damaged_bytes(path.read_bytes().decode("utf-8", "surrogateescape"))
    note = f"utf-8, {damaged:,} damaged bytes became U+FFFD" if damaged else ""
    return TextEncoding(codec="utf-8", errors="replace", note=note)


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _survey(path: Path) -> tuple[int | None, bool]:
    """(offset of the first zero byte, whether escape sequences switch to another script)."""
    done, escaped = 0, False
    for block in _blocks(path):
        if (at := block.find(0)) >= 0:
            return done + at, escaped
        escaped = escaped or ESCAPES.search(block) is not None
        done += len(block)
    return None, escaped


def _first_wrong(path: Path, codec: str) -> int | None:
    """Offset of the first bytes that are no character of the encoding."""
    decoder = codecs.getincrementaldecoder(codec)()
    done, block = 0, b""
    try:
        for block in _blocks(path):
            decoder.decode(block)
            done += len(block)
        block = b""
        decoder.decode(block, final=True)
    except UnicodeDecodeError as error:
        waiting = len(error.object) - len(block)  # of the block before, not yet a character
        return done - waiting + error.start
    except UnicodeError:  # a codec that does not tell the place
        return done
    return None


def _damaged_bytes(text: str) -> int:
    return len(re.findall("[\udc80-\udcff]", text))


def _wide(path: Path) -> str:
    """UTF-16 or UTF-32 without a byte order mark, or "": the order of bytes in which the common
    characters are common.
    """
    with open(path, "rb") as file:
        sample = file.read(SAMPLE_BYTES)
    shares = {}
    for codec in WIDE:
        text = sample.decode(codec, "ignore")
        shares[codec] = len(COMMON.findall(text)) / len(text) if text else 0.0
    best = max(WIDE, key=lambda codec: shares[codec])
    # In UTF-32 half of the units are zero, and zero is not common in UTF-16.
    rivals = [shares[codec] for codec in WIDE if codec != best and codec[:6] == best[:6]]
    fits = shares[best] >= 0.01 and shares[best] > 2 * max(rivals)
    if fits and _first_wrong(path, best) is None and _is_text(sample.decode(best, "ignore")):
        return best
    return ""


def _is_text(text: str) -> bool:
    """No control, private or unassigned characters but those of lines and pages."""
    odd = (c for c in set(text) if unicodedata.category(c) in ("Cc", "Co", "Cn", "Cs"))
    return all(c in "\t\n\r\f\v\x1a\x1b" for c in odd)


def _detected(path: Path, wrong: int) -> TextEncoding:
    """The encoding of a file that is not UTF-8 from the byte at `wrong` on."""
    with open(path, "rb") as file:
        data = file.read(JUDGED_BYTES)
    text = data.decode("utf-8", "surrogateescape")
    damaged = _damaged_bytes(text)
    right = sum(not c.isascii() for c in text) - damaged
    cut = 0 < damaged == path.stat().st_size - wrong <= 3 and data[wrong] >= 0xC2
    if cut or right * 2 >= damaged > 0:
        place = f"the first at offset {wrong} (line {data.count(10, 0, wrong) + 1})"
        end = "; it ends inside a character, so it may be cut off" if cut else ""
        raise ValueError(
            f"{path}: UTF-8 with damaged bytes: {damaged:,}, {place}{end}; repair the file, read "
            "it with --encoding=utf-8, which puts U+FFFD in their place, or name another encoding"
        )
    found = [codec for codec in _judged(data) if _first_wrong(path, codec) is None]
    if len(found) != 1:
        perhaps = f" ({' or '.join(found)}?)" if found else ""
        raise ValueError(
            f"{path}: not UTF-8 from the byte at offset {wrong} on, and no other encoding is "
            f"certain{perhaps}; convert it to UTF-8, or name its encoding with --encoding"
        )
    known = KNOWN_AS.get(found[0])
    return TextEncoding(codec=found[0], note=found[0] + (f" ({known})" if known else ""))


def _judged(data: bytes) -> list[str]:
    """The encodings that the bytes, which are not UTF-8, may be in: one when it is certain."""
    from charset_normalizer import from_bytes

    sample = _sample(data)
    runs = re.findall(rb"[\x80-\xff]+", sample)
    beyond = sum(map(len, runs))
    # Single letters beyond ASCII in words of ASCII letters: a language of Latin script.
    if runs and beyond < 1.6 * len(runs) and beyond < 0.35 * len(re.findall(rb"[^\s]", sample)):
        return _latin(sample)
    found = from_bytes(sample, cp_isolation=CANDIDATES)
    matches = [match for match in found if _is_plausible(str(match))]
    if not matches:
        return []
    best = matches[0]
    names = [_first_name(match.could_be_from_charset) for match in matches]
    if names[0] in LATIN:
        return _latin(sample)
    # Bytes rarely make characters of a multi-byte encoding by accident, and always of the others.
    rivals = [
        name
        for name, match in zip(names, matches, strict=True)
        if (name in MULTIBYTE or names[0] not in MULTIBYTE)
        and match.chaos <= best.chaos + 0.02
        and match.coherence >= best.coherence - 0.1
    ]
    enough = beyond >= ENOUGH_BYTES and len(set(b"".join(runs))) >= ENOUGH_KINDS
    return rivals if enough or b"\x1b" in sample else []


def _first_name(codecs_alike: list[str]) -> str:
    return next((name for name in CANDIDATES if name in codecs_alike), codecs_alike[0])


def _sample(data: bytes) -> bytes:
    """Whole lines that are not ASCII, some SAMPLE_BYTES of them."""
    lines, size = [], 0
    for line in data.split(b"\n"):
        if size < SAMPLE_BYTES and (not line.isascii() or b"\x1b" in line):
            lines.append(line)
            size += len(line)
    if len(data) == JUDGED_BYTES and len(lines) > 1 and size < SAMPLE_BYTES:
        lines.pop()  # cut off, perhaps inside a character
    return b"\n".join(lines)


def _is_plausible(text: str) -> bool:
    """Not binary, and not what texts look like in the wrong encoding: nearly all capitals, or full
    of half-width katakana.
    """
    beyond = [c for c in text if not c.isascii()]
    shouted = sum(map(str.isupper, beyond)) > 4 * sum(map(str.islower, beyond))
    half_width = sum("\uff61" <= c <= "\uff9f" for c in beyond)
    return _is_text(text) and not shouted and 2 * half_width <= len(beyond)


def _latin(sample: bytes) -> list[str]:
    """The encoding in which the words are those of one language."""
    scores = {}
    for codec in LATIN:
        try:
            text = f" {sample.decode(codec).lower()} "
        except UnicodeDecodeError:
            continue
        special = [(c, text[i - 1 : i + 2]) for i, c in enumerate(text) if not c.isascii()]
        scores[codec] = max(
            sum(_fits(c, around, letters) for c, around in special) for letters in ALPHABETS
        )
    return sorted(scores, key=lambda codec: -scores[codec])[:1]


def _fits(c: str, around: str, letters: str) -> bool:
    """Whether a letter stands in a word, or a sign beside one."""
    beside = around[0].isalpha() + around[-1].isalpha()
    return beside > 0 if c in letters else c in SIGNS and (beside < 2 or c in "‘’·")
