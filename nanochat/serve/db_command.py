"""`nanochat db`: the tables brought up to date, copied, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanochat.config import Positional
from nanochat.serve.users_command import DatabaseConfig


@dataclass(kw_only=True)
class DbUpgradeConfig(DatabaseConfig):
    """Bring the tables to this version, after a copy of what was there. The server does so, too."""


@dataclass(kw_only=True)
class DbBackupConfig(DatabaseConfig):
    """Copy everything into one compressed file, while the server runs. It holds what people wrote:
    keep it where only you can read it.
    """

    file: Positional[Path] = Path("nanochat-backup.jsonl.gz")
    """What to write; must not be there yet."""


@dataclass(kw_only=True)
class DbRestoreConfig(DatabaseConfig):
    """Put a copy into an empty database, of either kind."""

    file: Positional[Path] = Path("nanochat-backup.jsonl.gz")
    """What `nanochat db backup` wrote."""


def db_upgrade(cfg: DbUpgradeConfig) -> str:
    from nanochat.store.database import Database, chosen_url
    from nanochat.store.upgrading import upgrade

    database = Database(chosen_url(cfg.database))
    try:
        return f"{database.shown}: {upgrade(database)}"
    finally:
        database.close()


def db_backup(cfg: DbBackupConfig) -> str:
    from nanochat.store.backup import write_backup
    from nanochat.store.database import Database, chosen_url
    from nanochat.store.upgrading import check_known

    database = Database(chosen_url(cfg.database))
    try:
        with database.snapshot() as connection:
            if check_known(connection) is None:
                raise ValueError(f"--database={database.shown}: is empty, nothing to copy")
            n_rows = write_backup(connection, cfg.file)
    finally:
        database.close()
    return f"{cfg.file}: {n_rows} rows of {database.shown}"


def db_restore(cfg: DbRestoreConfig) -> str:
    from nanochat.store.database import Database, chosen_url
    from nanochat.store.upgrading import restore

    database = Database(chosen_url(cfg.database))
    try:
        n_rows = restore(database, cfg.file)
    finally:
        database.close()
    return f"{database.shown}: {n_rows} rows of {cfg.file}"
