"""Conversations, their tree of messages, files, folders, shares, export and import."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nanochat.store import attachments, chats, folders, messages, shares, transfer, users
from nanochat.store.account_tables import GroupRow, MembershipRow
from nanochat.store.chat_tables import AttachmentRow, ConversationRow, MessageRow
from nanochat.store.messages import MessageTree


@pytest.fixture
def session(database):
    with database.write() as session:
        yield session


@pytest.fixture
def ada(session) -> int:
    return users.add(session, "ada").id


@pytest.fixture
def bob(session) -> int:
    return users.add(session, "bob").id


def say(
    session: Session, conversation: ConversationRow, *texts: str, after: int | None = None
) -> list[MessageRow]:
    """Messages one after the other, the person's first."""
    rows = []
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        row = messages.add(session, conversation, after, role, content=text)
        after = row.id
        rows.append(row)
    conversation.active_leaf_id = after
    session.flush()
    return rows


def shown(session: Session, conversation: ConversationRow, user: int) -> list[str]:
    tree = MessageTree(session, conversation)
    views = messages.shown(session, tree, user, tree.path())
    return [view.row.content for view in views]


def test_edits_and_new_answers_keep_what_they_replace(session, ada):
    chat = chats.add(session, ada, title="t")
    one, two, _, four = say(session, chat, "a", "b", "c", "d")
    again = messages.add(session, chat, one.id, "assistant", content="B")
    chat.active_leaf_id = again.id
    assert shown(session, chat, ada) == ["a", "B"]
    tree = MessageTree(session, chat)
    assert tree.versions(again.id) == tree.versions(two.id) == [two.public_id, again.public_id]
    assert tree.end_of(two.id) == four.id and tree.end_of(None) == again.id
    edited = messages.add(session, chat, None, "user", content="A")
    chat.active_leaf_id = edited.id
    assert shown(session, chat, ada) == ["A"]
    chat.active_leaf_id = tree.end_of(two.id)
    assert shown(session, chat, ada) == ["a", "b", "c", "d"]
    chat.active_leaf_id = None  # whatever was lost, the newest version is shown
    assert shown(session, chat, ada) == ["A"]


def test_only_the_end_of_a_long_conversation_is_read(session, ada):
    chat = chats.add(session, ada)
    say(session, chat, *(f"{number:04d}" for number in range(260)))
    path = MessageTree(session, chat).path()
    rows = messages.newest(session, path, 400)
    assert [row.content for row in rows] == [f"{number:04d}" for number in range(160, 260)]
    assert [row.content for row in messages.newest(session, path, 1)] == ["0259"]
    assert messages.newest(session, [], 10) == []


def test_a_long_chain_is_deleted_whole(session, ada):
    chat = chats.add(session, ada)
    rows = [
        MessageRow(conversation_id=chat.id, role="user", content=str(number))
        for number in range(1500)
    ]
    session.add_all(rows)
    session.flush()
    for before, row in itertools.pairwise(rows):
        row.parent_id = before.id
    session.flush()
    attachments.add(
        session, ada, name="a", media_type="text/plain", text="x", size_bytes=1
    ).conversation_id = chat.id
    other = chats.add(session, ada)
    say(session, other, "stays")
    chats.delete(session, chat)
    session.flush()
    session.expire_all()
    assert session.scalar(select(func.count(MessageRow.id))) == 1
    assert session.scalar(select(func.count(AttachmentRow.id))) == 0


def test_the_list_is_newest_first_and_pages_without_gaps(session, ada, bob):
    made = [chats.add(session, ada, title=str(number)) for number in range(25)]
    for chat in made:
        chat.updated_at = 1000.0  # as after an import: only the order of making tells them apart
    say(session, made[3], "Where is the Treasure?")
    chats.add(session, bob, title="not hers")
    session.flush()
    titles: list[str] = []
    after = None
    while page := chats.listed(session, ada, after=after, limit=7):
        titles += [row.title for row in page]
        after = page[-1].public_id
    assert titles == ["3", *(str(number) for number in range(24, -1, -1) if number != 3)]


def test_search_looks_into_titles_and_messages(session, ada, bob):
    first = chats.add(session, ada, title="Travel to Rome")
    say(session, first, "where?", "the treasure is 100% hidden")
    theirs = chats.add(session, bob, title="Rome too")
    say(session, theirs, "treasure")

    def found(words: str) -> list[str]:
        return [row.title for row in chats.listed(session, ada, search=words)]

    assert found("rome") == found("TREASURE") == found("100%") == ["Travel to Rome"]
    assert found("0_% h") == found("' or 1=1 --") == found("nothing") == []


def test_folders(session, ada, bob):
    work = folders.named(session, ada, " Work ")
    assert folders.named(session, ada, "Work") is work
    inside = chats.add(session, ada, title="in", folder_id=work.id)
    chats.add(session, ada, title="out")
    listed = chats.listed(session, ada, folder=work.public_id)
    assert [(row.title, row.folder) for row in listed] == [("in", work.public_id)]
    assert chats.listed(session, bob, folder=work.public_id) == []
    assert folders.found(session, bob, work.public_id) is None
    other = folders.named(session, ada, "Other")
    with pytest.raises(ValueError, match="there is a folder"):
        folders.rename(session, other, "Work")
    with pytest.raises(ValueError, match="needs a name"):
        folders.named(session, ada, " \n")
    folders.delete(session, work)
    session.flush()
    session.expire_all()
    assert inside.folder_id is None and [row.name for row in folders.listed(session, ada)] == [
        "Other"
    ]


def test_shares_are_for_those_who_are_named(session, ada, bob):
    eve = users.add(session, "eve").id
    group = GroupRow(name="staff")
    session.add(group)
    session.flush()
    chat = chats.add(session, ada, title="secret")
    link = shares.share(session, chat, ["bob"], []).public_id
    assert shares.readable(session, bob, link) is chat
    assert shares.readable(session, ada, link) is chat
    assert shares.readable(session, eve, link) is None
    assert shares.readable(session, bob, "0" * 32) is None
    assert chats.found(session, bob, chat.public_id) is None, "reading is all they may"
    row = shares.share(session, chat, [], ["staff"])
    assert row.public_id == link and shares.audience(session, row) == ([], ["staff"])
    assert shares.readable(session, bob, link) is None
    session.add(MembershipRow(group_id=group.id, user_id=eve))
    session.flush()
    assert shares.readable(session, eve, link) is chat
    with pytest.raises(ValueError, match="nobody here is called nemo"):
        shares.share(session, chat, ["nemo", "bob"], [])
    shares.end(session, chat)
    session.flush()
    assert shares.readable(session, eve, link) is None


def test_files_belong_to_their_user(session, ada, bob):
    about = {"media_type": "text/plain", "text": "x", "size_bytes": 1}
    mine = attachments.add(session, ada, name="a", **about)
    theirs = attachments.add(session, bob, name="b", **about)
    found = attachments.found(session, ada, [theirs.public_id, mine.public_id])
    assert [row.name for row in found] == ["a"]
    for number in range(attachments.MOST_UNSENT + 5):
        attachments.add(session, ada, name=str(number), **about)
    session.flush()
    unsent = select(func.count(AttachmentRow.id)).where(AttachmentRow.user_id == ada)
    assert session.scalar(unsent) == attachments.MOST_UNSENT


def without_places(data: Any) -> Any:
    return json.loads(json.dumps(data, sort_keys=True))


def test_export_and_import_lose_nothing(session, ada, bob):
    folder = folders.named(session, ada, "Work")
    chat = chats.add(
        session,
        ada,
        title="Ärger „mit“ \U0001f600",
        model="sft:d2",
        system_prompt="Be kind.",
        settings={"temperature": 0.25, "top_k": 7},
        folder_id=folder.id,
    )
    one, _, three, _ = say(session, chat, "a", "b", "c <script>", "d")
    answer = messages.add(
        session,
        chat,
        three.id,
        "assistant",
        content="It is 42.",
        parts=[{"type": "python", "text": "6*7"}, {"type": "python_output", "text": "42"}],
        status="stopped",
        model="sft:d2",
        checkpoint_hash="ab12",
        settings={"seed": 3},
        prompt_tokens=5,
        completion_tokens=9,
    )
    messages.add(session, chat, None, "user", content="A")
    chat.active_leaf_id = answer.id
    about = {"media_type": "text/csv", "text": "x;y\n", "size_bytes": 4, "cut_tokens": 2}
    file = attachments.add(session, ada, name="a.csv", tokens=3, **about)
    file.message_id, file.conversation_id = one.id, chat.id
    session.flush()
    data = transfer.exported(session, chat)
    copy = transfer.imported(session, bob, json.loads(json.dumps(data)))
    session.flush()
    assert copy.user_id == bob and copy.public_id != chat.public_id
    assert without_places(transfer.exported(session, copy)) == without_places(data)
    assert shown(session, copy, bob) == shown(session, chat, ada)
    text = transfer.as_markdown(session, copy)
    assert "# Ärger „mit“" in text and "*Attached: a.csv*" in text and "It is 42." in text


@pytest.mark.parametrize("change", [{"parent": 1}, {"parent": 0}, {"parent": -1}, {"parent": 9}])
def test_an_import_with_a_false_parent_is_refused(session, ada, change):
    chat = chats.add(session, ada)
    say(session, chat, "a")
    data = transfer.exported(session, chat)
    data["messages"][0].update(change)
    with pytest.raises(ValueError, match="must name an earlier message"):
        transfer.imported(session, ada, data)


def test_titles():
    assert chats.title_of("\n  Hello there \nmore") == "Hello there"
    long = chats.title_of("word " * 30)
    assert long.endswith("word …") and len(long) <= 62
    assert chats.clean_title("a\n\tb\x1b[1m\u202e") == "a b [1m"
