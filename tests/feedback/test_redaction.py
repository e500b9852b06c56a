"""What looks like a person's number or a secret goes, what is a plain number stays."""

from __future__ import annotations

import pytest

from nanochat.feedback.redaction import Redactor

GONE = {
    "mail a.b+c@mail.example.co.uk now": "mail [e-mail] now",
    "<x_1@example.org>,": "<[e-mail]>,",
    "key sk-proj-abcdefghijklmnop1234 ok": "key [key] ok",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345": "[key]",
    "AKIAIOSFODNN7EXAMPLE": "[key]",
    "nc-AbCdEfGhIjKlMnOpQrStUvWxYz012345678901234": "[key]",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P": "[key]",
    "Authorization: Bearer abc123def456": "Authorization: Bearer [key]",
    "api_key = 'q8w7e6r5t4'": "api_key = '[key]'",
    "password is hunter2222, right": "password is [key], right",
    "5f4dcc3b5aa765d61d8327deb882cf99 is its digest": "[key] is its digest",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----!": "[key]!",
    "card 4111 1111 1111 1111.": "card [card].",
    "card 5500-0000-0000-0004": "card [card]",
    "378282246310005": "[card]",
    "DE89 3704 0044 0532 0130 00": "[account]",
    "call +49 171 1234567 or": "call [phone] or",
    "call 0171/123 45 67": "call [phone]",
    "call (555) 123-4567": "call [phone]",
    "555-123-4567": "[phone]",
    "06 12 34 56 78": "[phone]",
    "+14155552671": "[phone]",
}
STAYS = (
    "3 * 4 = 12 and 1234567 * 2 = 2469134",
    "the year 2026-11-25, the 25.11.2026, at 2026-11-25 19:04",
    "pi is 3.14159265358979",
    "LIMIT 100000000 rows, 123456789012 of them",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "SELECT count() FROM events WHERE day = '2026-03-14' AND id = 42",
    "a @ b, user@host, @name",
    "the password is secret",
    "nanochat/serve/work/model_loader_of_checkpoints.py",
    "supercalifragilisticexpialidociousandmore",
    "1111111111111111",
    "192.168.100.200 and 10.0.0.1:8000",
    "an order of 4111111111111112 pieces",
)


@pytest.mark.parametrize("text", GONE)
def test_it_goes(text):
    assert Redactor().redact(text) == GONE[text]


@pytest.mark.parametrize("text", STAYS)
def test_it_stays(text):
    assert Redactor().redact(text) == text


def test_it_is_counted_and_long_texts_take_no_time():
    redactor = Redactor()
    redactor.redact("a@b.org, c@d.org, +49 171 1234567")
    assert redactor.counts == {"e-mail": 2, "phone": 1}
    for piece in ("1 ", "a.", "x@", "0-", "A1", "(1", "password ", "-----BEGIN PRIVATE KEY-----"):
        redactor.redact(piece * 20_000)
