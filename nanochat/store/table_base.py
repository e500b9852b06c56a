"""What all tables have in common."""

from __future__ import annotations

import time
import uuid
from typing import Any

from sqlalchemy import JSON, Dialect, MetaData, Text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class PeoplesText(TypeDecorator[str]):
    """Text that people or models wrote. What a database cannot hold (NUL, half of a surrogate pair)
    becomes U+FFFD, in values to look for too.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """The text without what no database holds."""
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\ufffd")


class TableBase(DeclarativeBase):
    """The registry of the tables. A column `dict[str, Any]` or `list[Any]` is JSON."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


def new_id() -> str:
    """An id for the outside: 32 hexadecimal digits that nobody guesses."""
    return uuid.uuid4().hex


def now_s() -> float:
    """Seconds since 1970, UTC: what every column `..._at` holds."""
    return time.time()


def day_of(seconds: float) -> str:
    """The UTC day of a time, as 2026-03-14."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
