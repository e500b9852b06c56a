// What one sees and sets of oneself: usage, API keys, password, training consent, all conversations
// as a file.
import { askFor, choose, show } from "./dialog.js";
import { save } from "./menu.js";
import { element } from "./patch.js";
import { call, reply, send } from "./server.js";

// `me` is what the server says of the person; `imported()` when conversations were read.
export function accountMenu({ me, imported, fail }) {
  const doing = (work) => async () => {
    try {
      await work();
    } catch (error) {
      fail(error);
    }
  };
  const actions = [
    ["My usage", doing(() => usage(me))],
    ["Export all conversations", doing(() => save("api/conversations/export"))],
    ["Import conversations", doing(() => pickImport(imported, fail))],
  ];
  if (me.kind === "account") {
    actions.push(["My API keys", doing(keys)]);
    actions.push(["Change password", doing(password)]);
    actions.push([consentLabel(me), doing(() => consent(me))]);
  }
  return choose(me.name, actions);
}

function table(heads, rows) {
  const made = element("table");
  const head = element("tr");
  head.append(...heads.map((text) => {
    const cell = element("th", text);
    cell.scope = "col";
    return cell;
  }));
  made.append(head, ...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map((cell) => {
      const made = element("td", cell instanceof Node ? undefined : String(cell));
      if (cell instanceof Node) made.append(cell);
      if (typeof cell === "number") made.className = "right";
      return made;
    }));
    return row;
  }));
  const box = element("div", undefined, "table");
  box.append(made);
  return box;
}

async function usage(me) {
  const { data } = await call("api/usage?days=30&by=day");
  const limit = me.tokens_per_day === null ? "" : " of " + me.tokens_per_day.toLocaleString();
  const today = "Today: " + me.tokens_today.toLocaleString() + " tokens" + limit + ".";
  const rows = data.map((row) => [
    row.group, row.requests, row.prompt_tokens, row.completion_tokens,
  ]);
  const shown = rows.length
    ? table(["Day", "Requests", "Tokens in", "Tokens out"], rows)
    : element("p", "Nothing in the last 30 days.");
  await show("My usage", element("p", today), shown);
}

async function keys() {
  const { data } = await call("api/keys");
  let wanted = null;
  const close = () => document.getElementById("dialog").close();
  const rows = data.map((one) => {
    const button = element("button", "Revoke", "danger small");
    button.setAttribute("aria-label", "Revoke " + one.name);
    button.addEventListener("click", () => {
      wanted = () => send("DELETE", "api/keys/" + one.id);
      close();
    });
    const until = one.expires_at ? new Date(one.expires_at * 1000).toLocaleDateString() : "";
    return [one.name, one.prefix + "…", until, button];
  });
  const make = element("button", "New key", "main");
  make.addEventListener("click", () => {
    wanted = newKey;
    close();
  });
  const list = rows.length
    ? table(["Name", "Key", "Until", ""], rows)
    : element("p", "No keys yet. Programs use the API with one.");
  await show("My API keys", list, make);
  if (!wanted) return;
  await wanted();
  await keys();
}

async function newKey() {
  const said = await askFor("New API key", [
    { name: "name", label: "What is it for?" },
    {
      name: "days",
      label: "Valid for",
      kind: "select",
      options: [["30", "30 days"], ["90", "90 days"], ["365", "a year"], ["", "ever"]],
      value: "90",
    },
  ], { yes: "Create" });
  if (!said) return;
  const days = said.days ? Number(said.days) : null;
  const { key } = await send("POST", "api/keys", { name: said.name, days });
  const field = element("input");
  field.readOnly = true;
  field.value = key;
  field.setAttribute("aria-label", "The key");
  await show("Your new key", element("p", "Copy it now: it is not shown again."), field);
}

async function password() {
  const said = await askFor("Change password", [
    { name: "old", label: "Old password", type: "password" },
    { name: "new", label: "New password", type: "password" },
  ]);
  if (!said) return;
  await send("POST", "api/me/password", said);
  location.reload(); // the session is another one now
}

const consentLabel = (me) => (me.consent_training
  ? "Stop letting models learn from my feedback"
  : "Let models learn from my feedback");

async function consent(me) {
  Object.assign(me, await send("PATCH", "api/me", { consent_training: !me.consent_training }));
}

async function pickImport(imported, fail) {
  const pick = element("input");
  pick.type = "file";
  pick.accept = ".json,application/json";
  pick.addEventListener("change", async () => {
    try {
      const body = await pick.files[0].text();
      const response = await reply("api/conversations/import", { method: "POST", body });
      const { imported: ids } = await response.json();
      await imported(ids);
    } catch (error) {
      fail(error);
    }
  });
  pick.click();
}
