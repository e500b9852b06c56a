"""Opening, upgrading, backup and restore, on both kinds of database."""

from __future__ import annotations

import gzip
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from nanochat.store import users
from nanochat.store.account_tables import UserRow
from nanochat.store.backup import write_backup
from nanochat.store.chat_tables import ConversationRow, FeedbackRow, MessageRow
from nanochat.store.database import Database, default_url
from nanochat.store.table_base import TableBase
from nanochat.store.upgrading import restore, upgrade


def test_migrations_make_the_tables_that_the_code_has(database: Database):
    with database.read() as session:
        context = MigrationContext.configure(
            session.connection(), opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, TableBase.metadata) == []


def test_a_second_start_changes_nothing(database: Database, tmp_path: Path):
    assert "those of this version" in upgrade(database, tmp_path / "backups")
    assert not (tmp_path / "backups").exists()


def test_a_newer_schema_is_refused(database: Database):
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match="written by a newer nanochat .schema 9999"):
        upgrade(database)


def test_the_tables_of_others_are_left_alone(database_url: Callable[[], str]):
    database = Database(database_url())
    with database.write() as session:
        session.execute(text("CREATE TABLE invoices (id INTEGER)"))
    with pytest.raises(ValueError, match="not nanochat's .invoices"):
        upgrade(database)
    with database.read() as session:
        assert inspect(session.connection()).get_table_names() == ["invoices"]
    database.close()


def fill(database: Database, text: str = "h\u00e9llo \u4f60\u597d") -> None:
    with database.write() as session:
        user = users.add(session, "anna", role="admin", password_hash="x")
        user.settings = {"theme": "dark", "list": [1, None, True]}
        conversation = ConversationRow(user_id=user.id, title=text)
        session.add(conversation)
        session.flush()
        question = MessageRow(conversation_id=conversation.id, role="user", content=text)
        session.add(question)
        session.flush()
        answer = MessageRow(
            conversation_id=conversation.id, parent_id=question.id, role="assistant", content=text
        )
        session.add(answer)
        session.flush()
        conversation.active_leaf_id = answer.id
        session.add(FeedbackRow(message_id=answer.id, user_id=user.id, vote=-1, prompt=[{"a": 1}]))


def contents(database: Database) -> dict[str, list[tuple]]:
    with database.read() as session:
        return {
            table.name: [tuple(row) for row in session.execute(table.select()).all()]
            for table in TableBase.metadata.sorted_tables
        }


def test_an_older_schema_is_copied_and_upgraded(
    database_url: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A step is added for the test, as a later version would have one."""
    from shutil import copytree

    from nanochat.store import upgrading

    database = Database(database_url())
    upgrade(database)
    fill(database)
    before = contents(database)
    copytree(upgrading.MIGRATIONS, tmp_path / "migrations")
    (tmp_path / "migrations/versions/v9999_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '9999'\n"
        f"down_revision = '{max(p.name[1:5] for p in upgrading.MIGRATIONS.glob('versions/v*.py'))}'"
        "\ndef upgrade():\n    op.add_column('users', sa.Column('colour', sa.Text()))\n"
    )
    monkeypatch.setattr(upgrading, "MIGRATIONS", tmp_path / "migrations")
    said = upgrade(database, tmp_path / "backups")
    [copy] = (tmp_path / "backups").iterdir()
    assert str(copy) in said
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with database.read() as session:
        assert session.execute(text("SELECT name, colour FROM users")).all() == [("anna", None)]
    database.close()

    other = Database(database_url())
    restore(other, copy)  # of the older schema, into the newer one
    assert contents(other) == before
    with other.read() as session:
        assert session.execute(text("SELECT name, colour FROM users")).all() == [("anna", None)]
    other.close()


def test_a_step_that_fails_changes_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from shutil import copytree

    from nanochat.store import upgrading

    copytree(upgrading.MIGRATIONS, tmp_path / "migrations")
    (tmp_path / "migrations/versions/v9999_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '9999'\n"
        f"down_revision = '{max(p.name[1:5] for p in upgrading.MIGRATIONS.glob('versions/v*.py'))}'"
        "\ndef upgrade():\n    op.add_column('users', sa.Column('colour', sa.Text()))\n"
        "    op.execute('SELECT no_such_column FROM users')\n"
    )
    monkeypatch.setattr(upgrading, "MIGRATIONS", tmp_path / "migrations")
    with pytest.raises(Exception, match="no_such_column"):
        upgrade(database, tmp_path / "backups")
    with database.read() as session:
        columns = inspect(session.connection()).get_columns("users")
        assert "colour" not in {column["name"] for column in columns}
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() != "9999"


def test_backup_and_restore_lose_nothing(
    database: Database, database_url: Callable[[], str], tmp_path: Path
):
    fill(database)
    path = tmp_path / "copy.jsonl.gz"
    with database.read() as session:
        n_rows = write_backup(session.connection(), path)
    assert n_rows == 5
    other = Database(database_url())
    assert restore(other, path) == n_rows
    assert contents(other) == contents(database)
    with other.write() as session:  # numbers go on after those restored
        users.add(session, "berta")
    with pytest.raises(ValueError, match="not empty"):
        restore(other, path)
    other.close()


def test_a_damaged_backup_is_refused_whole(
    database: Database, database_url: Callable[[], str], tmp_path: Path
):
    fill(database)
    path, cut = tmp_path / "copy.jsonl.gz", tmp_path / "cut.jsonl.gz"
    with database.read() as session:
        write_backup(session.connection(), path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    damaged = {
        "cut.gz": path.read_bytes()[:-20],
        "fewer.gz": gzip.compress(b"".join(lines[:-2] + lines[-1:])),
        "endless.gz": gzip.compress(b"".join(lines[:-1])),
        "other.gz": gzip.compress(b"{}\n"),
        "text.gz": b"not packed at all",
        "broken.gz": gzip.compress(b"".join(lines[:2]) + b'["users", 3\n'),
        "column.gz": gzip.compress(b"".join(lines).replace(b'"password_hash"', b'"colour"')),
        "short.gz": gzip.compress(lines[0] + b'["users",1]\n{"rows":1}\n'),
        "strange.gz": gzip.compress(lines[0] + b'["nobody",1]\n{"rows":1}\n'),
    }
    for name, data in damaged.items():
        cut = tmp_path / name
        cut.write_bytes(data)
        other = Database(database_url())
        with pytest.raises(ValueError, match=name):
            restore(other, cut)
        with other.read() as session:
            assert inspect(session.connection()).get_table_names() == [], name
        other.close()


def test_a_backup_overwrites_nothing(database: Database, tmp_path: Path):
    path = tmp_path / "copy.jsonl.gz"
    path.write_text("precious")
    with database.read() as session, pytest.raises(ValueError, match="is there already"):
        write_backup(session.connection(), path)
    assert path.read_text() == "precious"
    assert list(tmp_path.glob("*.partial")) == []


def test_what_a_write_began_is_forgotten_when_it_fails(database: Database):
    with pytest.raises(ZeroDivisionError), database.write() as session:
        users.add(session, "anna")
        raise ZeroDivisionError
    with database.read() as session:
        assert users.listed(session) == []


def test_writers_wait_for_each_other(database: Database):
    """Read, add, write back: nothing is lost between threads."""
    with database.write() as session:
        users.add(session, "anna").tokens_per_day = 0

    def add() -> None:
        for _ in range(5):
            with database.write() as session:
                row = session.query(UserRow).with_for_update().one()
                row.tokens_per_day = (row.tokens_per_day or 0) + 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert users.existing(session, "anna").tokens_per_day == 40


def test_what_no_database_holds_is_replaced(database: Database):
    fill(database, "a\0b\ud800c \U0001f600")
    with database.read() as session:
        assert session.query(ConversationRow).one().title == "a\ufffdb\ufffdc \U0001f600"
        wanted = session.query(ConversationRow).filter(
            ConversationRow.title == "a\0b\ud800c \U0001f600"
        )
        assert wanted.count() == 1


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://a/b", "sqlite://", "sqlite:///:memory:", "postgresql://host", ""]
)
def test_addresses_that_are_none(url: str):
    with pytest.raises(ValueError, match="--database"):
        Database(url)


def test_a_server_that_does_not_answer_and_a_folder(tmp_path: Path):
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        Database("postgresql://anna:secret@127.0.0.1:1/chat")
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be opened"):
        Database(f"sqlite:///{tmp_path}")


def test_the_default_is_a_file_in_the_base_directory(base_dir: Path):
    database = Database(default_url())
    upgrade(database)
    database.close()
    assert stat.S_IMODE((base_dir / "nanochat.db").stat().st_mode) == 0o600
