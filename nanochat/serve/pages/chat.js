// The conversation: what was said, how it is shown, and the buttons.
import { element, mark, markdown, unmarked } from "./markdown.js";
import { ask, models } from "./stream.js";

const at = (id) => document.getElementById(id);
const log = at("log"), text = at("text"), main = document.querySelector("main");
const STORED = "nanochat-conversation";
let messages = [];
let running = null; // the AbortController of the answer being written

// --- showing

function plainText(message) {
  if (typeof message.content === "string") return message.content;
  return message.content.filter((part) => part.type === "text").map((part) => part.text).join("");
}

function fill(box, message) {
  box.replaceChildren();
  if (message.role === "user") {
    box.textContent = message.content;
    return;
  }
  const parts = typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
  const tools = [];
  let said = "", open = false;
  for (const part of parts) {
    if (part.type === "text") {
      said += unmarked(part.text);
    } else if (part.type === "python_output" && open) {
      tools[tools.length - 1].append(" = " + part.text);
    } else {
      said += mark(tools.length);
      tools.push(element("span", part.text, "tool"));
    }
    open = part.type === "python";
  }
  box.append(markdown(said, tools));
}

function show(message) {
  const box = element("div", undefined, "message " + message.role);
  fill(box, message);
  log.append(box);
  return box;
}

function showAll() {
  log.replaceChildren();
  messages.forEach(show);
  at("welcome").hidden = messages.length > 0;
  if (!running && messages.length && messages[messages.length - 1].role === "assistant") showButtons();
  main.scrollTop = main.scrollHeight;
}

function showButtons() {
  const row = element("div", undefined, "after");
  const again = element("button", "Regenerate");
  again.type = "button";
  again.addEventListener("click", regenerate);
  const copy = element("button", "Copy");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(plainText(messages[messages.length - 1]));
    copy.textContent = "Copied";
  });
  row.append(again, copy);
  const ending = messages[messages.length - 1].ending;
  if (ending) row.append(element("span", ending, "quiet"));
  log.append(row);
}

function notice(said) {
  at("notice").textContent = said || "";
  at("notice").hidden = !said;
}

function busy(is) {
  at("send").hidden = is;
  at("stop").hidden = !is;
  at("new-chat").disabled = at("model").disabled = is;
}

// --- remembering, for a reload of this tab

function remember() {
  try {
    sessionStorage.setItem(STORED, JSON.stringify(messages));
  } catch {
    // storage is full or switched off: the conversation lasts as long as the page
  }
}

function recall() {
  try {
    messages = JSON.parse(sessionStorage.getItem(STORED)) || [];
  } catch {
    messages = [];
  }
}

// --- talking

function settings() {
  const chosen = {};
  for (const [field, id] of [["temperature", "temperature"], ["top_k", "top-k"], ["max_tokens", "max-tokens"]]) {
    const value = at(id).value;
    if (value !== "") chosen[field] = Number(value);
  }
  if (at("model").value) chosen.model = at("model").value;
  return chosen;
}

function add(message, kind, said) {
  const last = message.content[message.content.length - 1];
  if (last && last.type === kind) last.text += said;
  else message.content.push({ type: kind, text: said });
}

async function answer() {
  running = new AbortController();
  busy(true);
  notice("");
  showAll();
  const message = { role: "assistant", content: [] };
  const box = show(message);
  box.classList.add("writing");
  let due = false;
  const draw = () => {
    due = false;
    const follow = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
    fill(box, message);
    if (follow) main.scrollTop = main.scrollHeight;
  };
  const take = (data) => {
    if (data.token) add(message, "text", data.token);
    for (const kind of ["python", "python_output"]) if (data[kind] !== undefined) add(message, kind, data[kind]);
    if (data.done) finish(message, data);
    if (!due) {
      due = true;
      requestAnimationFrame(draw);
    }
  };
  log.setAttribute("aria-busy", "true");
  try {
    const sent = messages.map(({ role, content }) => ({ role, content }));
    await ask({ messages: sent, ...settings() }, at("api-key").value, running.signal, take);
  } catch (error) {
    if (error.name === "AbortError") message.ending = "stopped";
    else notice(error.message);
  }
  log.removeAttribute("aria-busy");
  running = null;
  if (message.content.length) messages.push(message);
  remember();
  busy(false);
  showAll();
  if (!message.content.length) offerRetry();
  text.focus();
}

function finish(message, data) {
  if (data.error) notice(data.error);
  if (data.finish_detail && !data.error) message.ending = data.finish_detail;
  if (/^max_tokens=/.test(data.finish_detail)) message.ending = "cut off after " + data.tokens + " tokens";
  if (data.dropped_turns) {
    const turns = data.dropped_turns === 1 ? "turn does" : data.dropped_turns + " turns do";
    notice("The conversation is longer than the model's context: the oldest " + turns + " not count any more.");
  }
}

function offerRetry() {
  const row = element("div", undefined, "after");
  const again = element("button", "Try again");
  again.type = "button";
  again.addEventListener("click", answer);
  row.append(again);
  log.append(row);
}

function regenerate() {
  if (running) return;
  messages.pop();
  answer();
}

function fitText() {
  text.style.height = "auto";
  text.style.height = text.scrollHeight + 2 + "px";
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said || running) return;
  messages.push({ role: "user", content: said });
  text.value = "";
  fitText();
  remember();
  answer();
});
text.addEventListener("input", fitText);
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("ask").requestSubmit();
});
at("stop").addEventListener("click", () => running && running.abort());
at("new-chat").addEventListener("click", () => {
  messages = [];
  remember();
  notice("");
  showAll();
  text.focus();
});
at("settings-form").addEventListener("submit", (event) => event.preventDefault());
at("api-key").addEventListener("change", listModels);
document.addEventListener("click", (event) => {
  if (!at("settings").contains(event.target)) at("settings").open = false;
});

async function listModels() {
  try {
    const names = await models(at("api-key").value);
    at("model").replaceChildren(...names.map((name) => element("option", name)));
    at("model").hidden = names.length < 2;
    at("only-model").textContent = names.length === 1 ? names[0] : "";
    notice("");
  } catch (error) {
    notice(error.message);
  }
}

recall();
showAll();
listModels();
