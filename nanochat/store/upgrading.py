"""Bringing a database to the tables of this version, after a copy of what was there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from nanochat.runtime.base_dir import base_dir
from nanochat.store.backup import insert_backup, read_head, write_backup
from nanochat.store.database import Database, chosen_url

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x6E616E6F  # of PostgreSQL's advisory locks: one server upgrades, the others wait


def upgrade(database: Database, backups: Path | None = None) -> str:
    """Bring the tables up to date -> what was done, a sentence. A database with tables is copied to
    `backups` first. ValueError for one that a newer version has written.
    """
    with database.write() as session:
        connection = session.connection()
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        return upgrade_connection(connection, backups)


def upgrade_connection(
    connection: Connection,
    backups: Path | None = None,
    *,
    target: str = "head",
    copy: bool = True,
) -> str:
    """The same inside of a transaction; `target` is the last step to apply."""
    steps = ScriptDirectory(str(MIGRATIONS))
    wanted = steps.get_current_head() if target == "head" else target
    found = check_known(connection)
    if found == wanted:
        return f"the tables are those of this version ({found})"
    copied = ""
    if found is not None and copy:
        path = backup_path(backups, found)
        write_backup(connection, path)
        copied = f"; a copy of before is {path}"
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, target)
    return f"the tables were brought from {found or 'nothing'} to {wanted}{copied}"


@contextmanager
def opened(named: str | None) -> Iterator[Database]:
    """The database of a command, up to date; see `chosen_url`."""
    database = Database(chosen_url(named))
    try:
        upgrade(database)
        yield database
    finally:
        database.close()


def restore(database: Database, path: Path) -> int:
    """Put a backup into an empty database and bring it up to date -> how many rows. ValueError, and
    nothing changed, when the database holds tables or the file is not a whole backup.
    """
    revision = read_head(path)["revision"]
    steps = ScriptDirectory(str(MIGRATIONS))
    if revision not in {step.revision for step in steps.walk_revisions()}:
        raise ValueError(f"{path}: was written by a newer nanochat (schema {revision})")
    with database.write() as session:
        connection = session.connection()
        if inspect(connection).get_table_names():
            raise ValueError(f"--database={database.shown}: is not empty; name a new database")
        upgrade_connection(connection, target=revision)
        n_rows = insert_backup(connection, path)
        upgrade_connection(connection, copy=False)
    return n_rows


def revision_of(connection: Connection) -> str | None:
    """The last step that was applied; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def check_known(connection: Connection) -> str | None:
    """The database's revision. ValueError when this version does not know it, or when the tables
    are somebody else's.
    """
    found = revision_of(connection)
    known = {step.revision for step in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if found is None:
        others = inspect(connection).get_table_names()
        if others:
            raise ValueError(
                f"--database: holds tables that are not nanochat's ({', '.join(others[:3])}); name "
                "an empty database"
            )
    elif found not in known:
        raise ValueError(
            f"--database: was written by a newer nanochat (schema {found}, this version knows up "
            f"to {max(known)}); install that version, or restore a backup of this one's"
        )
    return found


def backup_path(folder: Path | None, revision: str) -> Path:
    """Where the copy before an upgrade goes: a name nobody has yet."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return (folder or base_dir() / "backups") / f"nanochat-{stamp}-schema-{revision}.jsonl.gz"
