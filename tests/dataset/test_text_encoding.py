"""The encoding of people's text files: known, found out and said, or refused; never mojibake."""

from __future__ import annotations

import codecs
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.dataset.own_text import import_text
from nanochat.dataset.text_encoding import encoding_problem, text_encoding

TEXTS = {
    "zh": "人工智能是计算机科学的一个分支，它企图了解智能的实质，"
    "并生产出一种新的能以人类智能相似的方式"
    "做出反应的智能机器。该领域的研究包括机器人、语言识别、图像识别、自然语言处理和专家系统等。\n",
    "zht": "人工智慧是電腦科學的一個分支，它企圖了解智慧的實質，"
    "並生產出一種新的機器。該領域的研究包括"
    "機器人、語言辨識、圖像辨識、自然語言處理和專家系統等。\n",
    "ja": "人工知能とは、計算という概念とコンピュータという道具を用いて"
    "知能を研究する計算機科学の一分野を"
    "指す語です。カタカナとひらがなと漢字がまざった文章。\n",
    "ko": "인공지능은 인간의 학습능력, 추론능력, 지각능력을 인공적으로 구현하려는 컴퓨터 과학의 "
    "세부분야 중 하나이다. 정보공학 분야에 있어 하나의 인프라 기술이기도 하다.\n",
    "ru": "Все счастливые семьи похожи друг на друга, каждая "
    "несчастливая семья несчастлива по-своему. "
    "Все смешалось в доме Облонских.\n",
    "uk": "Штучний інтелект є розділом комп'ютерної лінгвістики та інформатики, що опікується "
    "формалізацією проблем та завдань. Її ґанок.\n",
    "el": "Η τεχνητή νοημοσύνη είναι ο κλάδος της πληροφορικής που ασχολείται με τη σχεδίαση.\n",
    "he": "בינה מלאכותית היא ענף של מדעי המחשב העוסק ביכולתה של מכונה להציג יכולות שאפיינו.\n",
    "ar": "الذكاء الاصطناعي هو سلوك وخصائص معينة تتسم بها "
    "البرامج الحاسوبية تجعلها تحاكي القدرات.\n",
    "th": "ปัญญาประดิษฐ์ หมายถึงความฉลาดเทียมที่สร้างขึ้นให้กับสิ่งที่ไม่มีชีวิต\n",
    "fr": "L'intelligence artificielle, « œuvre » d'élèves naïfs : été, où, "
    "ça, forêt, à côté, Noël.\n",
    "de": "Künstliche Intelligenz: Größe, Länge, Übung, Äpfel, Straße, müßig, schön.\n",
    "es": "¿Qué es? La inteligencia artificial: años, niños, corazón, ¡atención! Avión.\n",
    "pl": "Sztuczna inteligencja: zażółć gęślą jaźń. Łódź, ćma, śnieg, źródło, mąż, pięć.\n",
    "cs": "Umělá inteligence: příliš žluťoučký kůň úpěl ďábelské ódy. Něco řešit, šaty, život.\n",
    "hu": "Árvíztűrő tükörfúrógép, őszi szűrő, hűség, bővül, író, éjjel.\n",
    "tr": "Yapay zekâ, ağaç, ığdır, şişe, İstanbul, öğrenme, düşünme, çoğul.\n",
    "en": "It’s a “smart quote” test – with a dash and a café. The quick brown fox jumps.\n",
}
WRITTEN = [
    *[("zh", name) for name in ("gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32")],
    *[("zht", name) for name in ("big5", "utf-16-le", "utf-32-be")],
    *[("ja", name) for name in ("shift_jis", "cp932", "euc_jp", "iso2022_jp", "utf-16-be")],
    *[("ko", name) for name in ("euc_kr", "cp949", "utf-16-le")],
    *[("ru", name) for name in ("koi8_r", "cp1251", "cp866", "iso8859_5", "utf-16-le")],
    *[("uk", name) for name in ("koi8_u", "cp1251")],
    *[("el", name) for name in ("cp1253", "iso8859_7")],
    *[("he", name) for name in ("cp1255", "iso8859_8")],
    *[("ar", name) for name in ("cp1256", "iso8859_6")],
    *[("th", name) for name in ("tis_620", "cp874")],
    *[("fr", name) for name in ("cp1252", "iso8859_15", "mac_roman", "utf-16-be")],
    *[("de", name) for name in ("cp1252", "iso8859_1", "cp850")],
    *[("es", name) for name in ("cp1252", "iso8859_1", "cp850")],
    *[("pl", name) for name in ("cp1250", "iso8859_2", "utf-32-le")],
    *[("cs", name) for name in ("cp1250", "iso8859_2")],
    *[("hu", name) for name in ("cp1250", "iso8859_2")],
    *[("tr", name) for name in ("cp1254", "iso8859_9")],
    *[("en", name) for name in ("cp1252", "mac_roman", "utf-16-le", "utf-32-le")],
]


def read(path, asked=None) -> str:
    how = text_encoding(path, asked)
    with open(path, encoding=how.codec, errors=how.errors, newline="") as file:
        return file.read()


@pytest.mark.parametrize(("language", "name"), WRITTEN)
@pytest.mark.parametrize("times", [1, 300])
def test_text_in_an_older_encoding_is_read_right_and_said(tmp_path, language, name, times):
    path = tmp_path / "t.txt"
    path.write_bytes((TEXTS[language] * times).encode(name))
    assert read(path) == TEXTS[language] * times
    assert text_encoding(path).note


@pytest.mark.parametrize("language", TEXTS)
def test_utf8_is_utf8_with_and_without_a_mark(tmp_path, language):
    for mark in (b"", codecs.BOM_UTF8):
        (tmp_path / "t.txt").write_bytes(mark + TEXTS[language].encode())
        assert read(tmp_path / "t.txt") == TEXTS[language]
        assert text_encoding(tmp_path / "t.txt").note == ""


@pytest.mark.parametrize("language", [name for name in TEXTS if name != "en"])
@pytest.mark.parametrize("how", ["cut", "dropped", "flipped", "inserted"])
def test_utf8_with_one_damaged_byte_names_its_offset_and_is_nothing_else(tmp_path, language, how):
    data = bytearray((TEXTS[language] * 50).encode())
    middle = len(data) // 2
    at = next(i for i in range(middle, len(data)) if data[i] >= 0xC2)  # a character of several
    if how == "cut":
        del data[at + 1 :]
    elif how == "dropped":
        del data[at + 1]
    elif how == "flipped":
        data[at + 1] = 0x41
    else:
        data.insert(at, 0xFF)
    path = tmp_path / "t.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"t\.txt: UTF-8 with damaged bytes: \d+, .*offset {at} "):
        text_encoding(path)
    repaired = read(path, "utf-8")
    assert "\ufffd" in repaired and repaired[:20] == TEXTS[language][:20]
    assert "damaged bytes became U+FFFD" in text_encoding(path, "utf-8").note


def test_a_file_that_ends_inside_its_last_character_is_cut_not_latin(tmp_path):
    path = tmp_path / "t.txt"
    for end in ("é", "€", "😀"):
        for kept in range(1, len(end.encode())):
            path.write_bytes(b"plain words and then " + end.encode()[:kept])
            with pytest.raises(ValueError, match="offset 21 .*it ends inside a character"):
                text_encoding(path)
    assert read(path, "cp1252").startswith("plain words and then ð")  # said by a person


def test_damage_far_into_a_file_is_found_at_the_right_place(tmp_path):
    data = bytearray(("é" * 3_000_001).encode())
    data[2_097_151] = 0xFF  # the last byte of a block that is read at once
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(ValueError, match="damaged bytes: 2, the first at offset 2097150 "):
        text_encoding(tmp_path / "t.txt")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
        b"ab\0cd" * 100,
        b"mostly text, but\0with a zero byte",
        random.Random(1).randbytes(5000),
        random.Random(2).randbytes(5001),
    ],
)
def test_binary_files_are_refused_with_the_place(tmp_path, data):
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"t\.txt: holds zero bytes, the first at offset \d+"):
        text_encoding(tmp_path / "t.txt")


@pytest.mark.parametrize(
    "data",
    [
        random.Random(3).randbytes(3000).replace(b"\0", b"\x80"),
        b"\xd0\xd2\xc9 and no more",
        "בינה מלאכותית היא ענף".encode("cp1255"),  # reads as Cyrillic capitals, too
    ],
)
def test_what_cannot_be_told_is_not_guessed(tmp_path, data):
    (tmp_path / "t.txt").write_bytes(data)
    with pytest.raises(ValueError, match="no other encoding is certain.*--encoding"):
        text_encoding(tmp_path / "t.txt")


def test_a_named_encoding_is_taken_for_what_is_not_utf8_and_checked(tmp_path):
    for name, data in {"a": "Привет".encode("cp1251"), "b": "Привет".encode()}.items():
        (tmp_path / name).write_bytes(data)
        assert read(tmp_path / name, "cp1251") == "Привет"
    (tmp_path / "c").write_bytes("你好".encode("gbk") + b"\xff")
    with pytest.raises(ValueError, match="damaged gbk text: the bytes at offset 4"):
        text_encoding(tmp_path / "c", "gbk")
    (tmp_path / "d").write_bytes("hi 你".encode("utf-16-le"))
    assert read(tmp_path / "d", "utf-16-le") == "hi 你"
    (tmp_path / "e").write_bytes("hi 你".encode("utf-16") + b"x")
    with pytest.raises(ValueError, match="damaged utf-16 text"):
        text_encoding(tmp_path / "e")
    assert encoding_problem("gb18030") == "" and "no encoding" in encoding_problem("base64")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60))
def test_any_utf8_is_read_as_utf8(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "t.txt"
    path.write_bytes(text.removeprefix("\ufeff").encode())
    assert read(path) == text.removeprefix("\ufeff")


def test_an_import_says_which_file_was_read_how(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for name, (language, codec) in {
        "a.txt": ("zh", "gbk"),
        "b.txt": ("zh", "gb18030"),
        "c.md": ("ru", "koi8_r"),
        "d.txt": ("en", "utf-8"),
    }.items():
        (source / name).write_bytes((TEXTS[language] * 3).encode(codec, "replace"))
    row = json.dumps({"text": TEXTS["ja"]}, ensure_ascii=False)
    (source / "e.jsonl").write_bytes(f"{row}\n".encode("shift_jis"))
    made = import_text(source, tmp_path / "out")
    for wanted in (
        "read as gb18030 (GBK): a.txt, b.txt",
        "read as koi8_r: c.md",
        "read as cp932 (Shift-JIS): e.jsonl",
    ):
        assert any(wanted in line for line in made.summary().split("\n")), made.summary()
    again = import_text(source, tmp_path / "out")
    assert again.unchanged and again.notes == made.notes


def test_all_damaged_files_are_told_at_once(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for i in range(30):
        (source / f"f{i:02}.txt").write_bytes(b"x" * i + "schön und ".encode() + b"gr\xc3 mehr")
    with pytest.raises(ValueError) as caught:
        import_text(source, tmp_path / "out")
    lines = str(caught.value).split("\n")
    assert "f00.txt" in lines[0] and "f19.txt" in lines[19] and lines[20] == "... and 10 more files"
    assert not list((tmp_path / "out").glob("*"))
    made = import_text(source, tmp_path / "out", encoding="utf-8")
    assert "read as utf-8, 1 damaged bytes became U+FFFD: f00.txt" in made.summary()
