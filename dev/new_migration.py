"""Write the next step of the database's tables from what has changed in `nanochat/store/`.

    python dev/new_migration.py "add a column for colours"

Read what it wrote before you keep it: Alembic does not see renames.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

from nanochat.store.database import Database
from nanochat.store.upgrading import MIGRATIONS, upgrade


def main(message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/now.db")
        upgrade(database)
        number = 1 + len(list((MIGRATIONS / "versions").glob("v[0-9]*.py")))
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("file_template", f"v{number:04d}_%%(slug)s")
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        database.close()
    print(*sorted(Path(MIGRATIONS / "versions").glob(f"v{number:04d}*")))


if __name__ == "__main__":
    main(sys.argv[1])
