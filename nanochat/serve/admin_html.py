"""What the admin pages show, as HTML. Every text that people or models wrote is escaped here, and
what a button does is said by its form: pages/admin.js sends it as JSON.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nanochat.serve.svg_chart import Bar, bar_chart, short
from nanochat.store.account_tables import ApiKeyRow, UserRow
from nanochat.store.chat_tables import FeedbackRow
from nanochat.store.usage import UsageTotal

PLACES = {"usage": "Usage", "users": "Users", "feedback": "Feedback", "models": "Models"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="csrf" content="{csrf}">
<title>{title} - nanochat</title>
<link rel="icon" href="../pages/icon.svg">
<link rel="stylesheet" href="../pages/admin.css">
<script type="module" src="../pages/admin.js"></script>
</head>
<body>
<header><a href="../">nanochat</a><nav aria-label="Administration">{places}</nav></header>
<main><h1>{title}</h1>
<p id="problem" role="alert" hidden></p>
{body}</main>
</body>
</html>
"""


def whole_page(place: str, csrf: str, body: str) -> str:
    here = {name: ' aria-current="page"' if name == place else "" for name in PLACES}
    places = "".join(f'<a href="{n}"{here[n]}>{title}</a>' for n, title in PLACES.items())
    return PAGE.format(title=PLACES[place], csrf=attribute(csrf), places=places, body=body)


def attribute(text: object) -> str:
    return escape(str(text), quote=True)


def table(names: Sequence[str], rows: Iterable[Sequence[str]], about: str) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not lines:
        return f'<p class="quiet">{escape(about)}: nothing yet.</p>'
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    caption = f"<caption>{escape(about)}</caption>"
    return (
        f'<div class="table"><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def action(label: str, address: str, method: str = "POST", **fields: str) -> str:
    """A form of one button that sends these fields."""
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{attribute(value)}">'
        for name, value in fields.items()
    )
    return (
        f'<form class="inline" data-method="{method}" data-address="{attribute(address)}">'
        f"{hidden}<button>{escape(label)}</button></form>"
    )


def day(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


# --- usage


def usage_body(
    totals: Mapping[str, Sequence[UsageTotal]],
    costs: Mapping[str, Sequence[float]],
    days: int,
    rate: float | None,
) -> str:
    """Tokens of each day as a chart; users and models as tables, with their share of the cost."""
    periods = " ".join(
        f'<a href="usage?days={n}"{" aria-current=true" if n == days else ""}>{n} days</a>'
        for n in (7, 30, 90)
    )
    by_day = totals["day"]
    bars = [
        Bar(label=t.name[5:], parts=(float(t.prompt_tokens), float(t.completion_tokens)))
        for t in by_day
    ]
    names = ("tokens in", "tokens out")
    key = '<p class="key"><span class="key0">tokens in</span> <span class="key1">tokens out</span>'
    chart = bar_chart(bars, f"Tokens a day, the last {days} days", names)
    parts = [
        f'<div class="row">{periods}{price_form(days, rate)}</div>',
        summary(by_day, costs["day"], rate),
        figure("Tokens a day", chart + f"{key}</p>") if bars else "",
    ]
    if rate:
        paired = zip(by_day, costs["day"], strict=True)
        money = [Bar(label=total.name[5:], parts=(cost,)) for total, cost in paired]
        parts.append(figure("Cost a day", bar_chart(money, "Cost a day", ("cost",))))
    for by, title in (("user", "By user"), ("model", "By model")):
        parts.append(usage_table(title, by, totals[by], costs[by], rate))
    days_table = usage_table("By day", "day", by_day, costs["day"], rate)
    parts.append(f"<details><summary>Day by day</summary>{days_table}</details>")
    return "\n".join(parts)


def price_form(days: int, rate: float | None) -> str:
    shown = "" if rate is None else f"{rate:g}"
    return (
        '<form class="inline" data-query><input name="rate" inputmode="decimal" size="8" '
        f'value="{shown}" placeholder="price/hour" aria-label="Price of an hour of the machine">'
        f'<input type="hidden" name="days" value="{days}"><button>Show cost</button></form>'
    )


def figure(title: str, body: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{body}</figure>"


def summary(by_day: Sequence[UsageTotal], costs: Sequence[float], rate: float | None) -> str:
    tokens, requests = sum(t.tokens for t in by_day), sum(t.requests for t in by_day)
    said = f"{requests:,} requests, {tokens:,} tokens"
    if rate:
        said += f", {sum(costs):.2f} for the machine"
        said += f" ({1e6 * sum(costs) / tokens:.2f} a million tokens)" if tokens else ""
    return f'<p class="summary">{said}</p>'


def usage_table(
    title: str, by: str, totals: Sequence[UsageTotal], costs: Sequence[float], rate: float | None
) -> str:
    names = [by, "requests", "tokens in", "tokens out", "latency", "first token"]
    rows = []
    for total, cost in zip(totals, costs, strict=True):
        times = ["" if s is None else f"{s:.2f} s" for s in (total.latency_s, total.first_token_s)]
        tokens = [short(total.prompt_tokens), short(total.completion_tokens)]
        row = [escape(total.name), f"{total.requests:,}", *tokens, *times]
        rows.append([*row, f"{cost:.2f}"] if rate else row)
    return table([*names, "cost"] if rate else names, rows, title)


# --- users and keys


def users_body(rows: Sequence[tuple[UserRow, int, Sequence[ApiKeyRow]]], caller_id: str) -> str:
    """Everybody, with what an admin may change. `rows`: user, tokens used today, keys."""
    lines = []
    for user, used, keys in rows:
        address = f"users/{user.public_id}"
        buttons = ""
        if user.kind == "account":
            other = "user" if user.role == "admin" else "admin"
            buttons = action(f"Make {other}", address, "PATCH", role=other)
            wanted = "false" if user.disabled else "true"
            said = "Enable" if user.disabled else "Disable"
            buttons += action(said, address, "PATCH", disabled=wanted)
        if user.public_id != caller_id:
            buttons += action("Delete with all data", address, "DELETE", confirm=user.name)
        state = "disabled" if user.disabled else user.kind
        agreed = "yes" if user.consent_training else "no"
        lines.append(
            [escape(user.name), user.role, state, f"{used:,}", limits_form(user, address), agreed]
            + [key_list(user, keys), buttons]
        )
    names = ("name", "role", "kind", "tokens today", "limits", "may train", "keys", "")
    return table(names, lines, "Users") + NEW_USER


NEW_USER = """<h2>New user</h2>
<form class="row" data-method="POST" data-address="users">
<label>Name <input name="name" required autocapitalize="none" spellcheck="false"></label>
<label>Password
<input name="password" type="password" autocomplete="new-password" minlength="8"></label>
<label>Role <select name="role"><option>user</option><option>admin</option></select></label>
<button>Add</button>
</form>
"""


def limits_form(user: UserRow, address: str) -> str:
    tokens = "" if user.tokens_per_day is None else user.tokens_per_day
    requests = "" if user.requests_per_minute is None else user.requests_per_minute
    name = attribute(user.name)
    return (
        f'<form class="inline" data-method="PATCH" data-address="{attribute(address)}">'
        f'<input name="tokens_per_day" type="number" min="0" value="{tokens}" '
        f'placeholder="tokens/day" aria-label="Tokens a day of {name}, empty: no limit">'
        f'<input name="requests_per_minute" type="number" min="0" value="{requests}" '
        f'placeholder="req/min" aria-label="Requests a minute of {name}, empty: no limit">'
        "<button>Set</button></form>"
    )


def key_list(user: UserRow, keys: Sequence[ApiKeyRow]) -> str:
    lines = [
        f"<li>{escape(key.name)} <code>{escape(key.prefix)}...</code> "
        f"used {day(key.last_used_at) or 'never'} "
        + action("Revoke", f"users/{user.public_id}/keys/{key.public_id}", "DELETE")
        + "</li>"
        for key in keys
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


# --- feedback


def feedback_body(
    rows: Sequence[tuple[FeedbackRow, str, bool]], counts: dict[str, int], status: str, offset: int
) -> str:
    """The queue, each with what was asked, answered and corrected, and what may become of it."""
    states = " ".join(
        f'<a href="feedback?status={name}"{" aria-current=true" if name == status else ""}>'
        f"{name} ({count})</a>"
        for name, count in counts.items()
    )
    export = (
        '<p class="row">Export what was accepted: '
        '<a href="feedback/export/conversations.jsonl" download>conversations</a> '
        '<a href="feedback/export/preferences.jsonl" download>preference pairs</a></p>'
    )
    cards = "".join(feedback_card(*row) for row in rows)
    if not rows:
        cards = f'<p class="quiet">Nothing is {escape(status)}.</p>'
    more = counts.get(status, 0) - offset - len(rows)
    after = offset + len(rows)
    link = f'<p><a href="feedback?status={status}&amp;offset={after}">{more} more</a></p>'
    return f'<p class="row">{states}</p>{export}{cards}{link if more > 0 else ""}'


def feedback_card(row: FeedbackRow, user: str, agreed: bool) -> str:
    thumb = {1: "thumbs up", -1: "thumbs down"}.get(row.vote, "no vote")
    consent = "" if agreed else ' <span class="warn">has not agreed to training</span>'
    said = "".join(
        f'<div class="said {attribute(message["role"])}"><b>{escape(message["role"])}</b>'
        f"<p>{escape(text_of(message['content']))}</p></div>"
        for message in row.prompt
    )
    comment = f"<p>Comment: {escape(row.comment)}</p>" if row.comment else ""
    settings = ", ".join(f"{escape(str(k))} {escape(str(v))}" for k, v in row.settings.items())
    checkpoint = escape((row.checkpoint_hash or "")[:12])
    address = f"feedback/{row.public_id}"
    right = row.corrected if row.corrected is not None else row.answer
    return (
        f'<article class="card"><header>{escape(user)}, {day(row.created_at)}, '
        f"{escape(row.model or '')} <code>{checkpoint}</code> {settings} <b>{thumb}</b>{consent}"
        f'</header>{said}<div class="said answer"><b>answered</b><p>{escape(row.answer)}</p></div>'
        f'{comment}<form data-method="POST" data-address="{address}">'
        f'<label>Right would be <textarea name="corrected" rows="3">{escape(right)}</textarea>'
        f'</label><p class="row"><button name="decision" value="accept">Accept</button>'
        f'<button name="decision" value="reject">Reject</button> is {escape(row.status)}</p>'
        f"</form></article>"
    )


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


# --- models


def models_body(served: Sequence[dict[str, Any]], loadable: Sequence[str]) -> str:
    """What is served and what could be."""
    lines = []
    for model in served:
        name = model["name"]
        buttons = action("Unload", "models", action="unload", model=name)
        if not model["default"]:
            buttons = action("Make default", "models", action="default", model=name) + buttons
        state = "default" if model["default"] else model["state"]
        work = f"{model['running']} running, {model['waiting']} waiting"
        step = "" if model["step"] is None else str(model["step"])
        where = "upstream" if model["remote"] else "here"
        shown = buttons if model["state"] == "served" else ""
        lines.append([f"<code>{escape(name)}</code>", step, where, state, work, shown])
    first = table(("model", "step", "runs", "", "work", ""), lines, "Served")
    there = [
        [f"<code>{escape(name)}</code>", action("Load", "models", action="load", model=name)]
        for name in loadable
    ]
    return first + table(("checkpoint", ""), there, "Checkpoints that could be served")
