"""A browser tab with the page in it, and a model whose answers the test writes."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from typing import Any

from nanochat.engine import EngineStats, Event, SamplingParams
from nanochat.engine.sequence import FinishReason
from nanochat.serve.work.served_model import ModelCard, ServedModel
from nanochat.serve.work.service import Service
from nanochat.serve.work.serving_metrics import ServingMetrics
from nanochat.tokenizer import Tokenizer
from nanochat.tokenizer.stream import Piece

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
QUIET = [
    *"--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync".split(),
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP nanochat.test 127.0.0.1",
]
# Counts the events of the answer that have come (`seen`), and can end the connection (`cut`).
WATCHED = """
const real = window.fetch;
window.seen = 0;
window.asked = 0;
window.fetch = async (path, options = {}) => {
  if (!String(path).endsWith("/messages")) return real(path, options);
  window.seen = 0;
  window.asked += 1;
  const response = await real(path, options);
  if (!response.ok) return response;
  const watch = new TransformStream({
    start(controller) { window.cut = () => controller.terminate(); },
    transform(chunk, controller) {
      controller.enqueue(chunk);
      window.seen += new TextDecoder().decode(chunk).split("\\n\\n").length - 1;
    },
  });
  response.body.pipeTo(watch.writable).catch(() => {});
  return new Response(watch.readable, { headers: response.headers });
};
"""
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
BELOW = (
    "(main => main.scrollHeight - main.scrollTop - main.clientHeight)"
    "(document.querySelector('main'))"
)


class ScriptedWorker:
    """A worker that writes what a test says, one answer at a time. `prompts` are those it got."""

    index = 0
    alive = True

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []
        self.request = 0
        self.writing = False
        self.deliver: Callable[[list[Event]], None] = lambda events: None

    def start(self, deliver: Callable[[list[Event]], None], lost: Callable[[str], None]) -> None:
        self.deliver = deliver

    def submit(self, request: int, prompt: list[int], params: SamplingParams, n: int) -> None:
        self.request = request
        self.writing = True
        self.prompts.append(prompt)

    def cancel(self, request: int, reason: FinishReason, detail: str) -> None:
        self.end(reason, detail)

    def stats(self) -> EngineStats | None:
        return None

    def stop(self) -> None:
        self.end("cancelled", "")

    def write(self, text: str, kind: str = "text") -> None:
        piece = Piece(kind, text)  # type: ignore[arg-type]
        self.deliver([Event(request=self.request, token=1, pieces=(piece,))])

    def end(self, reason: FinishReason = "stop", detail: str = "") -> None:
        if self.writing:
            self.writing = False
            ending = Event(request=self.request, finish_reason=reason, finish_detail=detail)
            self.deliver([ending])


def scripted_service(worker: ScriptedWorker) -> Service:
    tokenizer = Tokenizer.byte_level()
    card = ModelCard(
        name="sft:d2",
        tokenizer=tokenizer,
        context=100_000,
        vocab_size=tokenizer.get_vocab_size(),
    )
    service = Service(models={}, metrics=ServingMetrics())
    service.models["sft:d2"] = ServedModel(card, [worker], service.metrics)
    return service


class Tab:
    """One tab with the page in it. `complaints` are errors of its scripts and refused requests to
    elsewhere. `worker` writes its answers, where the test does.
    """

    def __init__(self, page: Any, url: str, worker: ScriptedWorker | None) -> None:
        self.page, self.url, self.worker = page, url, worker
        self.complaints: list[str] = []
        self.requested: list[str] = []
        self.expected = 0
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("request", lambda request: self.requested.append(request.url))
        page.add_init_script(WATCHED)
        if worker is not None:
            worker.prompts.clear()
        page.goto(url)
        self.text = page.locator("#text")
        self.messages = page.locator(".message:visible")
        self.questions = page.locator(".message.user:visible .body")
        self.answers = page.locator(".message.assistant:visible .body")
        self.notice = page.locator("#notice")
        self.again = page.locator("#again")
        self.titles = page.locator("#list a")
        self.dialog = page.locator("dialog")

    def _heard(self, message: Any) -> None:
        expected = (
            "Failed to load resource",  # the server refused a request of the test's
            "Cross-Origin-Opener-Policy header has been ignored",  # over plain HTTP
        )
        if message.type == "error" and not any(words in message.text for words in expected):
            self.complaints.append(message.text)

    def expect_asked(self, click: Callable[[], None]) -> None:
        """Do something that has a question answered, and wait until the model has it."""
        assert self.worker is not None
        before = len(self.worker.prompts)
        click()
        self.until(lambda: len(self.worker.prompts) > before)  # type: ignore[union-attr]
        self.expected = 1  # the opening event
        self.wait("window.seen >= 1")

    def ask(self, words: str) -> None:
        self.text.fill(words)
        if self.worker is None:
            self.text.press("Enter")
        else:
            self.expect_asked(lambda: self.text.press("Enter"))

    def regenerate(self) -> None:
        self.expect_asked(self.again.click)

    def emit(self, text: str, kind: str = "text") -> None:
        assert self.worker is not None
        self.worker.write(text, kind)
        self.expected += 1
        self.wait(f"window.seen >= {self.expected}")
        self.page.evaluate(TWO_FRAMES)

    def done(self) -> None:
        assert self.worker is not None
        self.worker.end()
        self.wait("!document.getElementById('send').hidden")

    def answer(self, words: str, text: str) -> None:
        """A whole turn."""
        self.ask(words)
        self.emit(text)
        self.done()

    def asked(self) -> list[list[str]]:
        """For each request that the model got, what its messages say."""
        assert self.worker is not None
        tokenizer = Tokenizer.byte_level()
        texts = [tokenizer.decode(prompt) for prompt in self.worker.prompts]
        return [[said for said in re.split(r"<\|\w+\|>", text) if said] for text in texts]

    def wait(self, condition: str) -> None:
        """Until the expression is true. (The page's policy forbids playwright's own way.)"""
        self.until(lambda: self.page.evaluate(condition), condition)

    def until(self, condition: Callable[[], Any], what: str = "it") -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, f"never: {what}"
            self.page.wait_for_timeout(20)

    def scrolled(self) -> float:
        return self.page.evaluate("document.querySelector('main').scrollTop")

    def below(self) -> float:
        """Pixels of the conversation below what is in view."""
        return self.page.evaluate(BELOW)

    def choose(self, button: str, action: str) -> None:
        """An action of one of the menus."""
        self.page.locator(button).click()
        self.dialog.get_by_role("button", name=action).click()
