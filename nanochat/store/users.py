"""Users: who there is, what they may do, and the groups they are in."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from nanochat.store.account_tables import (
    GroupRow,
    MembershipRow,
    ModelRightRow,
    UserRow,
    WebSessionRow,
)

ROLES = ("user", "admin")
LOCAL = "local"
MOST_PER_DAY = 2**31 - 1


def add(
    session: Session,
    name: str,
    *,
    role: str = "user",
    password_hash: str | None = None,
    oidc_subject: str | None = None,
    kind: str = "account",
) -> UserRow:
    """A new user. ValueError for a name that is taken or no name."""
    name = checked_name(name)
    if role not in ROLES:
        raise ValueError(f"role={role}: must be {' or '.join(ROLES)}")
    if named(session, name) is not None:
        raise ValueError(f"{name}: there is such a user already; choose another name")
    user = UserRow(
        name=name,
        role=role,
        kind=kind,
        password_hash=password_hash,
        oidc_subject=oidc_subject,
    )
    session.add(user)
    session.flush()
    return user


def checked_name(name: str) -> str:
    """The name as it is kept: in small letters, so that nobody passes for another. ValueError."""
    name = unicodedata.normalize("NFKC", name).casefold()
    if not re.fullmatch(r"[\w.@+-]{1,64}", name):
        raise ValueError(
            f"name={name[:80]!r}: must be 1 to 64 letters, digits or . _ @ + - without spaces"
        )
    return name


def named(session: Session, name: str) -> UserRow | None:
    kept = unicodedata.normalize("NFKC", name).casefold()
    return session.scalar(select(UserRow).where(UserRow.name == kept))


def existing(session: Session, name: str) -> UserRow:
    """The user of that name. ValueError when there is none."""
    user = named(session, name)
    if user is None:
        raise ValueError(f"{name}: there is no such user; `nanochat users list` shows them")
    return user


def by_public_id(session: Session, public_id: str) -> UserRow | None:
    return session.scalar(select(UserRow).where(UserRow.public_id == public_id))


def by_subject(session: Session, subject: str) -> UserRow | None:
    """The user whom an OpenID provider knows under this subject."""
    return session.scalar(select(UserRow).where(UserRow.oidc_subject == subject))


def listed(session: Session) -> list[UserRow]:
    """Everybody, by name; who stands for keys of a file too."""
    return list(session.scalars(select(UserRow).order_by(UserRow.name)))


def any_accounts(session: Session) -> bool:
    """Whether there are accounts, so that one has to sign in. Disabled ones count: disabling the
    last must not open the server.
    """
    return bool(session.scalar(select(exists().where(UserRow.kind == "account"))))


def local_user(session: Session) -> UserRow:
    """The one user of a server without accounts; made when there is none yet."""
    return named(session, LOCAL) or add(session, LOCAL, role="admin", kind="local")


def key_user(session: Session, key: str) -> UserRow:
    """Who stands for a key of --api-key-file; made when there is none yet."""
    name = "key-" + hashlib.sha256(key.encode()).hexdigest()[:12]
    return named(session, name) or add(session, name, kind="key")


def set_role(session: Session, user: UserRow, role: str) -> None:
    """ValueError when nobody would be left to administrate. Signs the user out."""
    if role not in ROLES:
        raise ValueError(f"role={role}: must be {' or '.join(ROLES)}")
    if role != "admin":
        keep_an_admin(session, user)
    user.role = role
    end_sessions(session, user)


def set_disabled(session: Session, user: UserRow, disabled: bool) -> None:
    """ValueError when nobody would be left to administrate. Signs the user out."""
    if disabled:
        keep_an_admin(session, user)
    user.disabled = disabled
    end_sessions(session, user)


def set_password(session: Session, user: UserRow, password_hash: str) -> None:
    """Signs the user out everywhere."""
    user.password_hash = password_hash
    end_sessions(session, user)


def set_limits(
    user: UserRow, *, tokens_per_day: int | None, requests_per_minute: int | None
) -> None:
    """None: no limit. ValueError for numbers that are none."""
    for name, value in (
        ("tokens_per_day", tokens_per_day),
        ("requests_per_minute", requests_per_minute),
    ):
        if value is not None and not 0 <= value <= MOST_PER_DAY:
            raise ValueError(f"{name}={value}: must be from 0 to {MOST_PER_DAY}")
    user.tokens_per_day = tokens_per_day
    user.requests_per_minute = requests_per_minute


def delete(session: Session, user: UserRow) -> None:
    """Remove a user with all that is theirs; counted usage stays, without a name."""
    keep_an_admin(session, user)
    session.delete(user)


def keep_an_admin(session: Session, leaving: UserRow) -> None:
    """ValueError when `leaving` is the last one who can administrate."""
    if leaving.kind != "account" or leaving.role != "admin" or leaving.disabled:
        return
    others = session.scalar(
        select(func.count()).where(
            UserRow.kind == "account",
            UserRow.role == "admin",
            UserRow.disabled.is_(False),
            UserRow.id != leaving.id,
        )
    )
    if not others:
        raise ValueError(f"{leaving.name}: is the last admin; make another one first")


def end_sessions(session: Session, user: UserRow) -> None:
    session.query(WebSessionRow).filter(WebSessionRow.user_id == user.id).delete()


# --- groups and what they may use


def add_group(session: Session, name: str) -> GroupRow:
    """ValueError for a name that is taken or no name."""
    name = checked_name(name)
    if session.scalar(select(GroupRow).where(GroupRow.name == name)) is not None:
        raise ValueError(f"{name}: there is such a group already; choose another name")
    group = GroupRow(name=name)
    session.add(group)
    session.flush()
    return group


def groups_of(session: Session, user_id: int) -> list[GroupRow]:
    belongs = select(MembershipRow.group_id).where(MembershipRow.user_id == user_id)
    return list(session.scalars(select(GroupRow).where(GroupRow.id.in_(belongs))))


def restricted_models(session: Session) -> set[str]:
    """The models that are for some groups only."""
    return set(session.scalars(select(ModelRightRow.model).distinct()))


def may_use(session: Session, user_id: int, model: str) -> bool:
    """Whether a user may use a model: it is for everybody, or for a group the user is in."""
    allowed = list(
        session.scalars(select(ModelRightRow.group_id).where(ModelRightRow.model == model))
    )
    if not allowed:
        return True
    return bool(
        session.scalar(
            select(
                exists().where(
                    MembershipRow.user_id == user_id, MembershipRow.group_id.in_(allowed)
                )
            )
        )
    )
