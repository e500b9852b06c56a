"""The page, the event stream it reads, health, statistics, metrics, the OpenAPI document."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources

import httpx
import pytest

from nanochat.serve.page_api import PAGES

ASK = [{"role": "user", "content": "Say something."}]


def events(url: str, **body) -> list[dict]:
    with httpx.stream("POST", f"{url}/chat/completions", json={"messages": ASK, **body}) as reply:
        assert reply.status_code == 200 and reply.headers["content-type"].startswith(
            "text/event-stream"
        )
        lines = [line for line in reply.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines]


def test_the_documented_stream(server):
    *tokens, done = events(server.url, temperature=0, max_tokens=12, top_k=50)
    assert all(set(event) == {"token", "gpu"} for event in tokens) and {
        event["gpu"] for event in tokens
    } == {0}
    assert done["done"] is True and done["finish_reason"] == "length" and done["tokens"] == 12
    asked = {"messages": ASK, "temperature": 0, "max_tokens": 12}
    whole = server.http.post(f"{server.url}/v1/chat/completions", json=asked).json()
    assert "".join(event["token"] for event in tokens) == whole["choices"][0]["message"]["content"]


def test_defaults_of_the_command_line_hold(server):
    assert events(server.url)[-1]["tokens"] == 32


def test_dropped_turns_are_told(server):
    long = [
        {"role": "user", "content": "x" * 60},
        {"role": "assistant", "content": "y" * 60},
    ] * 3 + ASK
    assert events(server.url, messages=long)[-1]["dropped_turns"] >= 1


def test_pages_are_served_with_a_strict_policy(server):
    for path in ["/", *(f"/pages/{name}" for name in PAGES)]:
        reply = server.http.get(server.url + path)
        assert reply.status_code == 200 and reply.headers["x-content-type-options"] == "nosniff"
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
    stored = {path.name for path in (resources.files("nanochat.serve") / "pages").iterdir()}
    assert stored == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_pages_use_nothing_from_elsewhere_and_never_write_html(name):
    text = (resources.files("nanochat.serve") / "pages" / name).read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url|from|import)\s*[=("'\s]+\s*(https?:)?//""", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text)


MARKDOWN_CHECK = """
const node = (name) => ({name, children: [],
  set textContent(text) { this.children = [text]; }, get textContent() { return flat(this); },
  append(...more) { this.children.push(...more); }, appendChild(one) { this.children.push(one); return one; }});
const flat = (one) => typeof one === "string" ? one : one.children.map(flat).join("");
globalThis.document = {createElement: node, createDocumentFragment: () => node("")};
const {markdown, mark, unmarked} = await import(process.argv[2]);
const shown = (one) => typeof one === "string" ? one :
  one.name ? `<${one.name}${one.href ? " " + one.href : ""}>${one.children.map(shown).join("")}</>` :
  one.children.map(shown).join("");
let tool = document.createElement("span"); tool.textContent = "1+1 = 2";
const cases = JSON.parse(process.argv[3]).map((text) => shown(markdown(text)));
cases.push(shown(markdown("so " + mark(0) + "2.", [tool])), unmarked("a\\ue000b"));
const start = Date.now();
for (const piece of ["*", "**a", "`", "[a](", "> ", "1. ", "#"]) markdown(piece.repeat(20000));
cases.push(Date.now() - start < 5000);
console.log(JSON.stringify(cases));
"""


def test_markdown(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's markdown cannot be run")
    texts = {
        "a **b** *c* `d*e*f`": "<p>a <strong>b</> <em>c</> <code>d*e*f</></>",
        "# T\n- x\n- y\n\n2. z": "<h2>T</><ul><li>x</><li>y</></><ol><li>z</></>",
        "```js\n<b>&\n```": "<pre><code><b>&</></>",
        "<img src=x onerror=alert(1)>": "<p><img src=x onerror=alert(1)></>",
        "[a](https://b.c/d) [e](javascript:f)": "<p><a https://b.c/d>a</> [e](javascript:f)</>",
        "one\ntwo\n\n> three": "<p>one<br></>two</><blockquote>three</>",
        "**open `and": "<p>**open `and</>",
    }
    (tmp_path / "check.mjs").write_text(MARKDOWN_CHECK)
    module = tmp_path / "markdown.mjs"
    module.write_text(
        (resources.files("nanochat.serve") / "pages" / "markdown.js").read_text(encoding="utf-8")
    )
    words = [node, str(tmp_path / "check.mjs"), str(module), json.dumps(list(texts))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *cases, marked, cleaned, fast = json.loads(done.stdout)
    assert cases == list(texts.values())
    assert marked == "<p>so <span>1+1 = 2</>2.</>" and cleaned == "a\ufffdb"
    assert fast, "some text takes quadratic time"


def test_health_and_statistics(server):
    health = server.http.get(f"{server.url}/health").json()
    assert health["status"] == "ok" and health["ready"] is True and health["available_workers"] == 2
    for question in ("live", "ready"):
        assert server.http.get(f"{server.url}/health/{question}").json() == {"status": "ok"}
    stats = server.stats()
    assert stats["total_workers"] == stats["available_workers"] == 2
    assert {"gpu_id", "pages_used", "generated_tokens"} <= set(stats["workers"][0])


def test_metrics_are_prometheus_text(server):
    events(server.url, temperature=0, max_tokens=5)
    reply = server.http.get(f"{server.url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+]+')
    values = {}
    for line in reply.text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in values
            values[name] = float(value)
    assert values['nanochat_running_answers{model="sft:d2"}'] == 0
    first = "nanochat_time_to_first_token_seconds"
    assert (
        values[f'{first}_bucket{{model="sft:d2",le="+Inf"}}']
        == values[f'{first}_count{{model="sft:d2"}}']
        > 0
    )
    between = values['nanochat_inter_token_latency_seconds_count{model="sft:d2"}']
    assert 0 < between < values['nanochat_generated_tokens_total{model="sft:d2"}']
    for name in ("queue_length", "cache_pages_used", "cache_bytes", "prompt_tokens_total"):
        assert any(key.startswith(f"nanochat_{name}{{") for key in values), name


def test_openapi_document_is_whole(server):
    document = server.http.get(f"{server.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/chat/completions"} <= set(
        document["paths"]
    )
    schemas = document["components"]["schemas"]
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert references and set(references) <= set(schemas)
    assert "messages" in schemas["ChatRequest"]["required"]
