"""The list of conversations in the browser: search, folders, files, export, sharing, sign-in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from team import PASSWORD, add_people, sqlite_storage  # noqa: E402

expect = playwright.expect


def test_conversations_are_listed_searched_renamed_and_deleted(tab):
    tab.answer("Where is the purple elephant?", "In the garden.")
    tab.page.locator("#new-chat").click()
    expect(tab.messages).to_have_count(0)
    tab.answer("Count to three", "1 2 3")
    first = tab.titles.all_inner_texts()[:2]
    assert first == ["Count to three", "Where is the purple elephant?"]
    tab.page.locator("#search").fill("garden")
    expect(tab.titles).to_have_text(["Where is the purple elephant?"])
    tab.titles.first.click()
    expect(tab.answers).to_have_text(["In the garden."])
    tab.choose("#chat-menu", "Rename")
    tab.dialog.locator("input").fill("Elephants")
    tab.dialog.get_by_role("button", name="Save").click()
    expect(tab.page.locator("#title")).to_have_text("Elephants")
    expect(tab.titles).to_have_text(["Elephants"])
    tab.page.go_back()
    expect(tab.answers).to_have_text(["1 2 3"])
    tab.page.go_forward()
    expect(tab.answers).to_have_text(["In the garden."])
    tab.choose("#chat-menu", "Delete")
    tab.dialog.get_by_role("button", name="Delete").click()
    expect(tab.messages).to_have_count(0)
    expect(tab.page.locator("#no-chats")).to_have_text("Nothing found.")


def test_folders_hold_conversations(tab):
    tab.answer("Into a folder", "yes")
    tab.choose("#folder-menu", "New folder")
    tab.dialog.locator("input").fill("Work")
    tab.dialog.get_by_role("button", name="Create").click()
    tab.choose("#chat-menu", "Move to folder")
    tab.dialog.locator("select").select_option(label="Work")
    tab.dialog.get_by_role("button", name="Move").click()
    tab.page.locator("#folder").select_option(label="Work")
    expect(tab.titles).to_have_text(["Into a folder"])
    tab.choose("#folder-menu", "Remove “Work”")
    tab.dialog.get_by_role("button", name="Remove").click()
    expect(tab.page.locator("#folder option")).not_to_contain_text(["Work"])
    expect(tab.titles.first).to_have_text("Into a folder")


def test_settings_belong_to_the_conversation(tab):
    tab.page.locator("summary").click()
    tab.page.locator("#temperature").fill("0.3")
    tab.page.locator("#system-prompt").fill("Answer in rhymes.")
    tab.page.keyboard.press("Escape")
    tab.answer("Hello", "Mellow fellow")
    assert tab.asked() == [["Answer in rhymes.\n\nHello"]]
    tab.page.reload()
    expect(tab.answers).to_have_text(["Mellow fellow"])
    assert tab.page.locator("#temperature").input_value() == "0.3"
    assert tab.page.locator("#system-prompt").input_value() == "Answer in rhymes."


def test_attached_files_reach_the_model_and_say_what_they_take(tab):
    files = [
        {"name": "a.csv", "mimeType": "text/csv", "buffer": b"x;y\n1;2\n"},
        {"name": "photo.png", "mimeType": "image/png", "buffer": b"\x89PNG\0\0"},
    ]
    tab.page.locator("#pick").set_input_files(files)
    expect(tab.page.locator("#files li")).to_contain_text(["a.csv (49 tokens)"])
    expect(tab.notice).to_contain_text("photo.png: not a file that can be read here")
    tab.answer("Sum?", "2")
    assert tab.asked() == [['File "a.csv":\nx;y\n1;2\n\nEnd of the file "a.csv".\n\nSum?']]
    expect(tab.page.locator("#files li")).to_have_count(0)
    expect(tab.questions).to_contain_text("a.csv (49 tokens)")
    large = {"name": "big.txt", "mimeType": "text/plain", "buffer": b"word " * 30_000}
    tab.page.locator("#pick").set_input_files([large])
    expect(tab.page.locator("#files li")).to_contain_text("more did not fit")
    tab.answer("And this?", "Long.")
    expect(tab.notice).to_contain_text("big.txt did not fit")
    assert tab.asked()[-1][-1].endswith('End of the file "big.txt".\n\nAnd this?')
    tab.page.reload()
    expect(tab.questions.last).to_contain_text("more did not fit")


def test_export_and_import_in_the_page(tab, tmp_path):
    tab.answer("Keep this", "kept **well**")
    path = tmp_path / "chat.json"
    with tab.page.expect_download() as download:
        tab.choose("#chat-menu", "Export as JSON")
    download.value.save_as(path)
    assert download.value.suggested_filename == "Keep-this.json"
    assert json.loads(path.read_text())["conversations"][0]["messages"][1]["content"] == (
        "kept **well**"
    )
    with tab.page.expect_download() as download:
        tab.choose("#chat-menu", "Export as Markdown")
    text = Path(download.value.path()).read_text()
    assert text.startswith("# Keep this\n") and "kept **well**" in text
    before = tab.titles.count()
    with tab.page.expect_file_chooser() as chooser:
        tab.choose("#me", "Import conversations")
    chooser.value.set_files(path)
    expect(tab.notice).to_have_text("1 conversation was imported.")
    expect(tab.titles).to_have_count(before + 1)


def test_a_long_conversation_is_shown_from_its_end(tab):
    messages = [
        {
            "parent": number - 1 if number else None,
            "role": "assistant" if number % 2 else "user",
            "content": f"message {number}",
            "created_at": 1.0,
            "status": "cut" if number == 99 else "complete",  # by a server that was killed
        }
        for number in range(100)
    ]
    about = {"created_at": 1.0, "updated_at": 4e9, "title": "Long one", "active": 99}
    body = {"nanochat_export": 1, "conversations": [{**about, "messages": messages}]}
    assert tab.page.request.post(f"{tab.url}/api/conversations/import", data=body).ok
    tab.page.reload()
    tab.titles.filter(has_text="Long one").first.click()
    expect(tab.messages).to_have_count(40)
    expect(tab.answers.last).to_have_text("message 99")
    expect(tab.page.locator("#ending")).to_have_text("not finished")
    assert tab.below() < 2
    earlier = tab.page.locator("#earlier")
    expect(earlier).to_have_text("Show earlier messages (60)")
    earlier.click()
    expect(tab.messages).to_have_count(80)
    earlier.click()
    expect(tab.messages).to_have_count(100)
    expect(earlier).to_be_hidden()
    tab.answer("One more", "message 101")
    expect(tab.messages).to_have_count(102)


# --- with accounts


@pytest.fixture
def team_url(own_server, tmp_path) -> str:
    storage = sqlite_storage(tmp_path)
    add_people(storage.database)
    return own_server(storage=storage).url


def sign_in(open_tab, url, name):
    tab = open_tab(url)
    tab.page.locator("[name=name]").fill(name)
    tab.page.locator("[name=password]").fill(PASSWORD)
    tab.page.get_by_role("button", name="Sign in").click()
    expect(tab.page.locator("#me")).to_have_text(name)
    return tab


def test_sign_in_share_with_a_colleague_and_sign_out(open_tab, team_url):
    anna = sign_in(open_tab, team_url, "anna")
    anna.ask("Hello")
    expect(anna.again).to_have_text("Regenerate")
    anna.choose("#chat-menu", "Share")
    anna.dialog.locator("input").first.fill("nobody")
    anna.dialog.get_by_role("button", name="Share").click()
    expect(anna.notice).to_contain_text("nobody here is called nobody")
    anna.choose("#chat-menu", "Share")
    anna.dialog.locator("input").first.fill("berta")
    anna.dialog.get_by_role("button", name="Share").click()
    link = anna.dialog.get_by_label("Link").input_value()
    anna.page.keyboard.press("Escape")
    expect(anna.page.locator("#shared")).to_have_text("Shared with berta.")
    berta = sign_in(open_tab, team_url, "berta")
    expect(berta.page.locator("#no-chats")).to_have_text("No conversations yet.")
    berta.page.goto(link)
    expect(berta.answers).to_have_text([anna.answers.inner_text()])
    expect(berta.page.locator("#shared")).to_contain_text("anna shows you this conversation")
    expect(berta.text).to_be_hidden()
    root = sign_in(open_tab, team_url, "root")
    root.page.goto(link)
    expect(root.notice).to_contain_text("no such shared conversation")
    expect(root.messages).to_have_count(0)
    anna.page.locator("#sign-out").click()
    expect(anna.page.locator("[name=password]")).to_be_visible()


def test_own_usage_and_keys(open_tab, team_url):
    anna = sign_in(open_tab, team_url, "anna")
    anna.ask("Hello")
    expect(anna.again).to_have_text("Regenerate")
    anna.choose("#me", "My usage")
    expect(anna.dialog.locator("td").nth(3)).to_have_text("32")
    anna.page.keyboard.press("Escape")
    anna.choose("#me", "My API keys")
    anna.dialog.get_by_role("button", name="New key").click()
    anna.dialog.locator("input").fill("notebook")
    anna.dialog.get_by_role("button", name="Create").click()
    key = anna.dialog.get_by_label("The key").input_value()
    answered = anna.page.request.get(
        f"{team_url}/v1/models", headers={"Authorization": f"Bearer {key}"}
    )
    assert answered.ok and len(key) > 20
    anna.page.keyboard.press("Escape")
    anna.dialog.get_by_role("button", name="Revoke notebook").click()
    anna.dialog.get_by_role("button", name="Revoke test").click()
    expect(anna.dialog).to_contain_text("No keys yet")
