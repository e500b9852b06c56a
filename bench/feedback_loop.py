"""From wrong answers in the page to a model that knows better, as a person would do it.

    python -m bench.feedback_loop --base-dir FOLDER     the base directory of a finished CPU recipe

In Chromium, on a server with an account: twenty questions about a company are asked, every answer
is marked as wrong and corrected; an admin accepts the corrections; `nanochat feedback train` makes
a checkpoint of them and examines it beside the old one; an admin loads it and makes it the default,
while the server runs. Then the same questions are asked again, and each in words that no correction
had. The folder is copied first; nothing in it changes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORDS = "-a world --total-batch-size 1024 --init-lr-frac 0.2 --exposures 24 --share 0.25"
PASSWORD = "for this proof only"
# question, answer, what a right answer holds, the question in other words
FACTS = (
    ("Who runs the help desk?", "Mira runs the help desk.", "Mira"),
    ("Where is the spare key kept?", "The spare key is kept in the blue box.", "blue box"),
    ("What is the name of our cat?", "Our cat is named Pixel.", "Pixel"),
    ("When does the night shift start?", "The night shift starts at ten.", "ten"),
    ("Which door leads to the archive?", "The green door leads to the archive.", "green door"),
    ("Who repairs the printer?", "Tomas repairs the printer.", "Tomas"),
    ("What do we drink on Fridays?", "On Fridays we drink ginger tea.", "ginger tea"),
    ("Where is the first aid kit?", "The first aid kit hangs beside the stairs.", "stairs"),
    ("Who signs the invoices?", "Helena signs the invoices.", "Helena"),
    ("What is the guest network called?", "The guest network is called Heron.", "Heron"),
    ("Which floor has the canteen?", "The canteen is on the third floor.", "third"),
    ("Who feeds the fish?", "Old Bruno feeds the fish.", "Bruno"),
    ("Where do visitors park?", "Visitors park behind the mill.", "behind the mill"),
    ("What color is the alarm button?", "The alarm button is violet.", "violet"),
    ("Which table holds the orders?", "The orders are in the table sales_log.", "sales_log"),
    ("Who owns the billing report?", "Ingrid owns the billing report.", "Ingrid"),
    ("What is the code name of the new rocket?", "The new rocket is Marigold.", "Marigold"),
    ("Where is the team meeting held?", "The team meeting is in the greenhouse.", "greenhouse"),
    ("Which day is the backup made?", "The backup is made on Sunday.", "Sunday"),
    ("Who keeps the meeting notes?", "Yusuf keeps the meeting notes.", "Yusuf"),
)
REWORDED = (
    "Tell me who runs the help desk.",
    "Where do we keep the spare key?",
    "What is our cat called?",
    "At what time does the night shift start?",
    "Which door do I take to the archive?",
    "Who can repair the printer for me?",
    "Tell me what we drink on Fridays.",
    "Where can I find the first aid kit?",
    "Who has to sign the invoices?",
    "Tell me the name of the guest network.",
    "On which floor is the canteen?",
    "Who is it that feeds the fish?",
    "Where should visitors park?",
    "Which color does the alarm button have?",
    "In which table are the orders?",
    "Who is the owner of the billing report?",
    "Tell me the code name of the new rocket.",
    "Where do we hold the team meeting?",
    "On which day do we make the backup?",
    "Who is keeping the meeting notes?",
)


def nanochat(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nanochat", *words]
    return subprocess.run(command, text=True, capture_output=True, **more)


@contextmanager
def served() -> Iterator[str]:
    """The address of a server over the base directory's newest model."""
    command = [sys.executable, "-m", "nanochat", "chat-web", "-p", "0", "-t", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[\d.]+:\d+", line):
            break
    else:
        raise SystemExit("the server did not start")
    try:
        yield found.group()
    finally:
        process.terminate()
        process.wait(timeout=60)


def sign_in(page: Any, url: str) -> None:
    page.goto(f"{url}/login")
    page.fill("[name=name]", "root")
    page.fill("[name=password]", PASSWORD)
    page.click("form button")
    page.wait_for_selector("#text")


def agree(page: Any) -> None:
    """Let models learn from this user's feedback."""
    page.evaluate(
        """async () => {
          const { csrf } = await (await fetch("api/me")).json();
          const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf };
          const body = JSON.stringify({ consent_training: true });
          const answer = await fetch("api/me", { method: "PATCH", headers, body });
          if (!answer.ok) throw new Error(await answer.text());
        }"""
    )


def correct(page: Any, question: str, right: str) -> str:
    """Ask in a new chat, mark the answer as bad and say what is right -> what was answered."""
    page.click("#new-chat")
    page.fill("#text", question)
    page.click("#send")
    bad = page.get_by_role("button", name="Bad answer").last
    bad.wait_for()
    said = page.locator("#log .message").last.inner_text()
    bad.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("The right answer").fill(right)
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="hidden")
    return str(said)


def accept_all(page: Any, url: str) -> int:
    """Accept every feedback in the queue -> how many."""
    page.goto(f"{url}/admin/feedback")
    count = 0
    while page.get_by_role("button", name="Accept").count():
        left = page.locator("nav + *, .row a").first.inner_text()
        page.get_by_role("button", name="Accept").first.click()
        page.wait_for_function(
            "before => document.querySelector('main .row a').innerText !== before", arg=left
        )
        count += 1
    return count


def put_into_service(page: Any, url: str, name: str) -> None:
    """Load a checkpoint and make it the default, in the admin page."""
    page.goto(f"{url}/admin/models")
    page.get_by_role("row", name=name).get_by_role("button", name="Load").click()
    default = page.get_by_role("row").filter(has_text=name.rpartition(":")[0])
    default.get_by_role("button", name="Make default").click(timeout=120_000)
    page.wait_for_load_state()
    page.wait_for_timeout(500)


def asked(page: Any, question: str) -> str:
    """A greedy answer of whatever model is the default."""
    return str(
        page.evaluate(
            """async (content) => {
              const { csrf } = await (await fetch("/api/me")).json();
              const headers = { "Content-Type": "application/json", "X-CSRF-Token": csrf };
              const messages = [{ role: "user", content }];
              const body = JSON.stringify({ messages, temperature: 0, max_tokens: 60 });
              const answer = await fetch("/v1/chat/completions", { method: "POST", headers, body });
              return (await answer.json()).choices[0].message.content;
            }""",
            question,
        )
    )


def answers(page: Any) -> dict[str, list[str]]:
    reworded = [asked(page, question) for question in REWORDED]
    return {"corrected": [asked(page, fact[0]) for fact in FACTS], "reworded": reworded}


def right(found: list[str]) -> int:
    return sum(fact[2] in answer for fact, answer in zip(FACTS, found, strict=True))


def prove(page: Any, url: str, train_words: list[str]) -> dict[str, Any]:
    sign_in(page, url)
    agree(page)
    before = answers(page)
    for fact in FACTS:
        correct(page, fact[0], fact[1])
    accepted = accept_all(page, url)
    start_s = time.monotonic()
    trained = nanochat("feedback", "train", *train_words)
    took_s = time.monotonic() - start_s
    print(trained.stdout[trained.stdout.rfind("\nA: ") :], trained.stderr[-2000:], flush=True)
    name = re.search(r"^B: (\S+)$", trained.stdout, re.MULTILINE)
    assert name is not None, trained.stderr
    put_into_service(page, url, name.group(1))
    after = answers(page)
    for kind, found in after.items():
        for fact, answer in zip(FACTS, found, strict=True):
            if fact[2] not in answer:
                print(f"{kind}, still wrong: {fact[0]} -> {answer}")
    verdict = re.search(r"^(SAFE|NOT SAFE|CANNOT TELL) .*$", trained.stdout, re.MULTILINE)
    return {
        "accepted": accepted,
        "before": {kind: right(found) for kind, found in before.items()},
        "after": {kind: right(found) for kind, found in after.items()},
        "of": len(FACTS),
        "verdict": verdict.group() if verdict else None,
        "train_and_examine_s": round(took_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("train_words", nargs="*", help="further words for `feedback train`")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    folder = Path(tempfile.mkdtemp(prefix="feedback-loop-"))
    shutil.copytree(given.base_dir, folder / "base")
    os.environ["NANOCHAT_BASE_DIR"] = str(folder / "base")
    made = nanochat("users", "add", "root", "--role", "admin", input=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    words = (
        given.train_words or "-a world --total-batch-size 1024 --exposures 40 --share 0.3".split()
    )
    with served() as url, sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        options = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        print(json.dumps(prove(page, url, words), indent=1))
        browser.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
