"""Passwords: argon2id hashes, slow on purpose. Never call this inside of a transaction."""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_LENGTH = 10
MAX_LENGTH = 1024
# of a password that nobody has: an unknown name takes as long as a wrong password
NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=4$UQZVxdXh/wlAdy7Z/mXnCw"
    "$rHgcAF/zhBi8Kw+TLR6BLF1Ilrs9xFko00DqHg+eOKw"
)


def hash_password(password: str) -> str:
    """What is kept of a password (RFC 9106). ValueError for one that is too easy to guess."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise ValueError(f"password: needs {MIN_LENGTH} to {MAX_LENGTH} characters")
    if len(set(password)) < 4:
        raise ValueError("password: needs at least four different characters")
    return PasswordHasher().hash(normal(password))


def password_fits(password: str, password_hash: str | None) -> bool:
    """Whether it is the password. Takes as long where there is none to compare it with."""
    try:
        fits = PasswordHasher().verify(password_hash or NOBODY, normal(password))
    except (VerificationError, InvalidHashError):
        return False
    return fits and password_hash is not None


def normal(password: str) -> bytes:
    """The same bytes on every keyboard (NFKC), and nothing of a megabyte is hashed."""
    text = unicodedata.normalize("NFKC", password[: MAX_LENGTH + 1])
    return text.encode("utf-8", "surrogatepass")
