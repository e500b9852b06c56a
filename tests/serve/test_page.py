"""The page, the event stream it reads, health, statistics, metrics, the OpenAPI document."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

PAGES = sorted(path.name for path in (resources.files("nanochat.serve") / "pages").iterdir())
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
    for path in ("/pages/nothing.js", "/pages/..%2fterminal.py", "/pages/", "/pages/index"):
        assert server.http.get(server.url + path).status_code == 404


def test_the_first_load_is_below_100_kb():
    """The page, its styles and every module that these import, unpacked."""
    pages = resources.files("nanochat.serve") / "pages"
    wanted, seen = ["index.html"], {}
    while wanted:
        name = wanted.pop()
        if name not in seen:
            seen[name] = (pages / name).read_text(encoding="utf-8")
            found = re.findall(r'(?:src|href)="pages/([\w.-]+)"|from "\./([\w.-]+)"', seen[name])
            wanted += [one or other for one, other in found]
    assert {"chat.js", "markdown.js", "style.css", "dialog.js"} <= set(seen)
    assert sum(len(text.encode()) for text in seen.values()) < 100_000


@pytest.mark.parametrize("name", PAGES)
def test_pages_use_nothing_from_elsewhere_and_never_write_html(name):
    text = (resources.files("nanochat.serve") / "pages" / name).read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url|from|import)\s*[=("'\s]+\s*(https?:)?//""", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text)
    absolute = r'(?:src|href|action)="/|["`/](?:/api|/v1|/pages|/login|/logout|/admin)\b'
    assert not re.search(absolute, text), "it would not work behind a path prefix"


MARKDOWN_CHECK = """
const { blocks } = await import(process.argv[2] + "/markdown.js");
const { mark, unmarked } = await import(process.argv[2] + "/inline.js");
const shown = (one) => typeof one === "string" ? one :
  `<${[one[0], one[1].href, one[1].start, one[1].class].filter(Boolean).join(" ")}>` +
  `${one.slice(2).map(shown).join("")}</>`;
const html = (text, marked) => blocks(text, marked).map((block) => shown(block.tree)).join("");
const cases = JSON.parse(process.argv[3]);
const result = {
  shown: cases.map((text) => html(text)),
  starts: blocks("# a\\n\\nb\\nc\\n\\n- d\\n").map((block) => block.start),
  marked: html("so " + mark(0) + "2.", [["span", {}, "1+1 = 2"]]),
  cleaned: unmarked("a\\ue000b"),
};
const pieces = ["*", "**a", "`", "``a`", "[a](", "> ", "1. ", "#", "- ", "*a **b ", "a* ", "~~a",
  "|", "a|b\\n", "](", "https://a)", "https://a!", "\\\\", "\\n", "- a\\n\\n", "  - a\\n", "~~~a`",
  "[a](https://x ", "| a |\\n|-|\\n", "```\\n", "\\t", "  ", "_a", "(", "\\r\\n", "1. a\\n   "];
const start = Date.now();
for (const piece of pieces) {
  const many = piece.repeat(8000);
  for (const text of [many, many + "x", "- a\\n" + many + "\\nx"]) blocks(text);
}
result.fast = Date.now() - start < 30000;
console.log(JSON.stringify(result));
"""
MARKDOWN = {
    "a **b** *c* `d*e*f`": "<p>a <strong>b</> <em>c</> <code>d*e*f</></>",
    "***x*** **a *b* c** *a **b***": "<p><em><strong>x</></> <strong>a <em>b</> c</> "
    "<em>a <strong>b</></></>",
    "***a** b* ~~c~~ ~d~": "<p><em><strong>a</> b</> <del>c</> ~d~</>",
    "snake_case_name _a_ __b__": "<p>snake_case_name <em>a</> <strong>b</></>",
    "2*3*4 = 24, 2 * 3 * 4, f(x)*g*(y)": "<p>2*3*4 = 24, 2 * 3 * 4, f(x)*g*(y)</>",
    "\\*a\\* ``a`b`` ` x `": "<p>*a* <code>a`b</> <code>x</></>",
    "# T\n- x\n- y\n\n2. z": "<h2>T</><ul><li>x</><li>y</></><ol 2><li>z</></>",
    "# C#\n## D ##\n#no": "<h2>C#</><h3>D</><p>#no</>",
    "- a\n  - b\n    - c\n  - d\n- e": "<ul><li>a<ul><li>b<ul><li>c</></></><li>d</></></>"
    "<li>e</></>",
    "1. a\n   - b\n\n   c\n\n2. d": "<ol><li>a<ul><li>b</></><p>c</></><li>d</></>",
    "1. a\n    - b\n\t- c": "<ol><li>a<ul><li>b</><li>c</></></></>",
    "a\n- b\nc\n1984. d": "<p>a</><ul><li>b<br></>c</></><ol 1984><li>d</></>",
    "| a | b |\n|:-:|--:|\n| *1* | x\\|y |\nz": "<div table><table><thead><tr><th centre>a</>"
    "<th right>b</></></><tbody><tr><td centre><em>1</></><td right>x|y</></></></></><p>z</>",
    "so:\na | b\n--|--": "<p>so:</><div table><table><thead><tr><th>a</><th>b</></></></></>",
    "a\n---\n***\n- - -\nb": "<p>a</><hr></><hr></><hr></><p>b</>",
    "```js\n<b>&\n```\n~~~\nopen": "<pre><code><b>&</></><pre><code>open</></>",
    "<img src=x onerror=alert(1)>": "<p><img src=x onerror=alert(1)></>",
    "[a](https://b.c/d) [e](javascript:f)": "<p><a https://b.c/d>a</> [e](javascript:f)</>",
    "[w](https://a.b/C_(d)) ![i](https://e.f)": "<p><a https://a.b/C_(d)>w</> <a https://e.f>i</></>",
    "[x](data:text/html,y) [m](mailto:a@b.c)": "<p>[x](data:text/html,y) <a mailto:a@b.c>m</></>",
    "(https://a.b/c_d). xhttps://f": "<p>(<a https://a.b/c_d>https://a.b/c_d</>). xhttps://f</>",
    "[https://a.b](https://c.d)": "<p><a https://c.d>https://a.b</></>",
    "one\ntwo\n\n> three\n> - four": "<p>one<br></>two</><blockquote><p>three</>"
    "<ul><li>four</></></>",
    "**open `and": "<p>**open `and</>",
}


def test_markdown(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: the page's markdown cannot be run")
    (tmp_path / "check.mjs").write_text(MARKDOWN_CHECK)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for name in ("markdown.js", "inline.js"):
        text = (resources.files("nanochat.serve") / "pages" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text, encoding="utf-8")
    words = [node, str(tmp_path / "check.mjs"), str(tmp_path), json.dumps(list(MARKDOWN))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert dict(zip(MARKDOWN, result["shown"], strict=True)) == MARKDOWN
    assert result["starts"] == [0, 5, 10]
    assert result["marked"] == "<p>so <span>1+1 = 2</>2.</>" and result["cleaned"] == "a\ufffdb"
    assert result["fast"], "some text takes quadratic time"


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
    values = {
        (sample.name, sample.labels.get("model"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }

    def value(name: str, le: str | None = None) -> float:
        return values[f"nanochat_{name}", "sft:d2", le]

    assert value("running_answers") == value("queue_length") == value("cache_pages_used") == 0
    assert value("ready") == 1 and value("cache_bytes") > 0 and value("prompt_tokens_total") > 0
    first = "time_to_first_token_seconds"
    assert value(f"{first}_bucket", "+Inf") == value(f"{first}_count") > 0
    between = value("inter_token_latency_seconds_count")
    assert 0 < between < value("generated_tokens_total")
    assert 'nanochat_requests_total{path="/metrics",status="200"}' in (
        server.http.get(f"{server.url}/metrics").text
    )


def test_openapi_document_is_whole(server):
    document = server.http.get(f"{server.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/chat/completions"} <= set(
        document["paths"]
    )
    schemas = document["components"]["schemas"]
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert references and set(references) <= set(schemas)
    assert "messages" in schemas["ChatRequest"]["required"]
