// The page: sends what is typed, shows the answer as it comes, and brings its parts together.
import { accountMenu } from "./account.js";
import { dress } from "./actions.js";
import { copy } from "./clipboard.js";
import { Files } from "./files.js";
import { Follow } from "./follow.js";
import { chatMenu } from "./menu.js";
import { element } from "./patch.js";
import { models, RequestFailed, send, useKey, whoAmI } from "./server.js";
import { Side } from "./side.js";
import { ask, tooLarge } from "./stream.js";
import { Thread } from "./thread.js";

const SETTINGS = {
  temperature: "temperature", top_k: "top-k", top_p: "top-p", max_tokens: "max-tokens",
};
const LOOK_AGAIN_MS = 700; // at an answer that another tab, or nobody, reads

const at = (id) => document.getElementById(id);
const text = at("text");
const follow = new Follow(document.querySelector("main"));
const touch = matchMedia("(pointer: coarse)"); // no keyboard: Enter makes a line, focus stays away
const on = { busy: () => running !== null, edit, version, fail: (error) => notice(error.message) };
const thread = new Thread((view) => dress(view, on, Boolean(thread.shared)));
const side = new Side((id) => openChat(id, true), on.fail);
const files = new Files(() => at("model").value, on.fail);
let running = null; // the AbortController of the answer that is being written
let editing = null; // the view of the question that is being edited
let me = { name: "", kind: "local" };

// --- showing

function showState() {
  const { last, unanswered, about, shared } = thread;
  const writing = running !== null;
  at("send").hidden = writing;
  at("stop").hidden = !writing;
  at("model").disabled = writing;
  at("log").ariaBusy = String(writing);
  at("welcome").hidden = last !== undefined;
  at("after").hidden = writing || last === undefined || Boolean(shared);
  at("again").textContent = writing ? "" : unanswered ? "Answer" : "Regenerate";
  at("copy").hidden = unanswered;
  at("copy").textContent = "Copy";
  at("ending").textContent = endingOf(last);
  at("earlier").hidden = !thread.earlier;
  at("earlier").textContent = "Show earlier messages (" + thread.earlier + ")";
  at("chat-menu").hidden = !about || Boolean(shared);
  document.querySelector("footer").hidden = Boolean(shared);
  const title = (about && about.title) || "New chat";
  at("title").textContent = title;
  document.title = about && about.title ? title + " - nanochat" : "nanochat";
  showBanner();
}

function showBanner() {
  const { about, shared } = thread;
  const share = about && about.share;
  const names = share ? [...share.people, ...share.groups].join(", ") : "";
  at("shared").hidden = !share;
  at("shared").textContent = shared
    ? about.owner + " shows you this conversation. It can be read by: " + names + "."
    : "Shared with " + names + ".";
}

function endingOf(message) {
  if (!message || message.role === "user") return "";
  if (message.ending) return message.ending;
  if (message.status === "cut" && message.tokens) return "cut off after " + message.tokens + " tokens";
  if (message.status === "cut") return "not finished"; // the server was killed
  return { stopped: "stopped", failed: "not finished", streaming: "being written …" }[message.status] || "";
}

function notice(said) {
  at("notice").textContent = said || "";
  at("notice").hidden = !said;
}

function type(typed) {
  text.value = typed;
  fitText();
}

function fitText() {
  text.style.height = "auto";
  text.style.height = text.scrollHeight + 2 + "px";
}

function focusText() {
  if (!touch.matches) text.focus();
}

// --- conversations

async function openChat(id, visit) {
  stop();
  stopEditing();
  notice("");
  try {
    await thread.open(id);
  } catch (error) {
    notice(error.message);
    return;
  }
  if (visit) history.pushState(null, "", "?c=" + id);
  shown();
  focusText();
  lookAgain();
}

function shown() {
  side.mark(thread.id);
  showSettings();
  showState();
  follow.toEnd();
}

function startOver(visit = true) {
  stop();
  stopEditing();
  thread.clear();
  if (visit) history.pushState(null, "", location.pathname);
  notice("");
  side.mark(null);
  side.close();
  showState();
  focusText();
}

// What the address names: a conversation, one that somebody shares, or a new one.
async function openAddress() {
  const words = new URLSearchParams(location.search);
  if (words.has("s")) {
    try {
      await thread.openShared(words.get("s"));
      shown();
    } catch (error) {
      startOver(false);
      notice(error.message);
    }
  } else if (words.has("c")) {
    await openChat(words.get("c"), false);
  } else {
    startOver(false);
  }
}

// An answer that is being written without us: looked at until it is done.
async function lookAgain() {
  const id = thread.id;
  while (id === thread.id && !running && thread.last && thread.last.status === "streaming") {
    await new Promise((done) => setTimeout(done, LOOK_AGAIN_MS));
    if (id !== thread.id || running) return;
    try {
      await thread.refresh();
    } catch {
      return;
    }
    showState();
  }
}

async function version(id) {
  try {
    await thread.showVersion(id);
  } catch (error) {
    notice(error.message);
  }
  showState();
}

// --- settings

function settings() {
  const chosen = {};
  for (const [field, id] of Object.entries(SETTINGS)) {
    if (at(id).value !== "") chosen[field] = Number(at(id).value);
  }
  return chosen;
}

function showSettings() {
  const about = thread.about || { settings: {}, system_prompt: "", model: null };
  for (const [field, id] of Object.entries(SETTINGS)) {
    const value = about.settings[field];
    at(id).value = value === undefined || value === null ? "" : value;
  }
  at("system-prompt").value = about.system_prompt;
  const known = [...at("model").options].some((option) => option.value === about.model);
  if (known) at("model").value = about.model;
}

const beginning = () => ({
  model: at("model").value || null,
  system_prompt: at("system-prompt").value,
  settings: settings(),
  folder: side.folder || null,
});

async function keepSettings() {
  const { model, system_prompt, settings: chosen } = beginning();
  try {
    await thread.change({ model: model || "", system_prompt, settings: chosen });
    notice("");
    return true;
  } catch (error) {
    notice(error.message);
    return false;
  }
}

// --- talking

// Asks `content`, in place of an edited question if there is one.
async function askNew(content) {
  const sent = files.take();
  const edited = editing;
  stopEditing();
  const hidden = edited ? thread.views.slice(thread.views.indexOf(edited)) : [];
  for (const view of hidden) view.box.hidden = true;
  const question = thread.add({ role: "user", content, attachments: sent });
  type("");
  const failure = await answer({
    content,
    attachments: sent.map((file) => file.id),
    ...(edited ? { edits: edited.message.id } : {}),
  }, question);
  if (thread.views.includes(question) && question.message.id) {
    for (const view of hidden) thread.drop(view);
    return;
  }
  // It was not taken: back to where it was typed, so that no later question carries it.
  thread.drop(question);
  for (const view of hidden) view.box.hidden = false;
  type([content, text.value].filter(Boolean).join("\n\n"));
  files.putBack(sent);
  if (edited) edit(edited, text.value);
  if (failure) notice("Not sent: " + failure.message);
  showState();
  focusText();
}

// Has the last question answered. An answer that it has already stays until the new one is complete.
async function answerAgain() {
  if (running || !thread.last) return;
  const old = thread.unanswered ? null : thread.views[thread.views.length - 1];
  const question = old ? old.message.parent : thread.last.id;
  if (old) old.box.hidden = true;
  await answer({ answer: question }, null, old);
}

// Returns what went wrong.
async function answer(body, question, old = null) {
  const message = { role: "assistant", content: "", parts: [], growing: true };
  const view = thread.add(message);
  running = new AbortController();
  notice("");
  showState();
  follow.toEnd();
  const failure = await write(body, view, question);
  running = null;
  settle(view, old, failure);
  if (failure instanceof RequestFailed) {
    notice(failure.message);
    if (question && !question.message.id) await findQuestion(question, failure);
  }
  showState();
  follow.grown();
  return failure;
}

// Leaves the answer that counts on the page: the new one if it says something and is whole, or there
// was none before.
function settle(view, old, failure) {
  const { message } = view;
  message.growing = false;
  if (message.parts.length && !(failure && old)) {
    if (old) thread.drop(old);
    if (message.html === undefined) message.content = said(message);
    dress(view, on);
    return;
  }
  thread.drop(view);
  if (old) old.box.hidden = false;
  if (!failure) notice("The model answered with nothing.");
  if (failure && old && message.id) setTimeout(lookForVersions, LOOK_AGAIN_MS);
}

const said = ({ parts }) => parts.filter((part) => part.type === "text").map((part) => part.text).join("");

// The answer that was given up is a version of the one that is shown.
async function lookForVersions() {
  if (running) return;
  try {
    await thread.refresh();
  } catch {
    return; // it is only about a count
  }
  showState();
}

// The server may have taken a question although no answer came: a busy one has.
async function findQuestion(question, failure) {
  if (failure.refused || !thread.id) return;
  try {
    await thread.refresh();
  } catch {
    return;
  }
  const { last } = thread;
  const taken = last && last.role === "user" && last.content === question.message.content;
  if (taken) thread.drop(question);
  if (taken) question.message.id = last.id;
  if (taken && !thread.views.includes(question)) thread.views.push(question);
}

// Asks, and shows the answer as it comes: at most one change for each frame. Returns what went wrong.
async function write(body, view, question) {
  const { message } = view;
  const isNew = !thread.about;
  let due = 0;
  const draw = () => {
    due = 0;
    view.update(message);
    follow.grown();
  };
  view.box.classList.add("writing");
  try {
    await thread.ensure(beginning());
    if (isNew) history.pushState(null, "", "?c=" + thread.id);
    await ask(thread.id, body, running.signal, (data) => {
      if (data.question) begun(data, view, question);
      take(message, data);
      due = due || requestAnimationFrame(draw);
    });
    return null;
  } catch (error) {
    message.ending = error.name === "AbortError" ? "stopped" : "not finished";
    return error;
  } finally {
    cancelAnimationFrame(due);
    view.box.classList.remove("writing");
    message.growing = message.html === undefined;
    draw();
  }
}

// The first event: what the server has written down.
function begun(data, view, question) {
  const { message } = view;
  const { id, parent, versions, model, feedback } = data.answer;
  Object.assign(message, { id, parent, versions, model, feedback });
  if (question) {
    question.message = data.question;
    question.update(data.question);
    dress(question, on);
  }
  const renamed = thread.about.title !== data.conversation.title;
  thread.about = data.conversation;
  if (renamed) showState();
  side.current = thread.id;
  side.load();
  warn(data);
}

function warn({ dropped_turns: dropped, question }) {
  const said = [];
  if (dropped) {
    const turns = dropped === 1 ? "turn does" : dropped + " turns do";
    said.push("The conversation is longer than the model's context: the oldest " + turns + " not count any more.");
  }
  for (const { name, cut_tokens: cut } of question.attachments) {
    if (cut) said.push(name + " did not fit: " + cut.toLocaleString() + " tokens at its end were left out.");
  }
  if (said.length) notice(said.join(" "));
}

// One event of the stream: text, or a tool's call or result, or how the answer ended.
function take(message, data) {
  for (const [kind, piece] of [
    ["text", data.token],
    ["python", data.python],
    ["python_output", data.python_output],
  ]) {
    if (!piece) continue;
    const last = message.parts[message.parts.length - 1];
    if (last && last.type === kind) last.text += piece;
    else message.parts.push({ type: kind, text: piece });
  }
  if (!data.done) return;
  if (data.message) Object.assign(message, data.message, { parts: message.parts });
  const { finish_detail: detail } = data;
  if (detail && !/^max_tokens=/.test(detail)) message.ending = detail;
}

function stop() {
  if (running) running.abort();
}

// --- editing

function edit(view, typed = view.message.content) {
  if (running) return;
  stopEditing();
  editing = view;
  view.box.classList.add("edited");
  type(typed);
  at("send").textContent = "Ask again";
  text.focus();
}

function stopEditing() {
  if (!editing) return;
  editing.box.classList.remove("edited");
  editing = null;
  at("send").textContent = "Send";
}

// --- the controls

async function listModels() {
  const found = await models();
  at("model").replaceChildren(...found.map(({ id }) => element("option", id)));
  at("model").hidden = found.length < 2;
  at("only-model").textContent = found.length === 1 ? found[0].id : "";
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if ((!said && !files.files.length) || running || files.reading) return;
  if (tooLarge(said)) {
    notice("Not sent: the message is too large.");
    return;
  }
  focusText();
  askNew(said);
});

text.addEventListener("input", fitText);
text.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && editing) {
    stopEditing();
    type("");
  }
  // 229: the key belongs to an input method, also where Safari says that nothing is composed.
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
  const line = event.shiftKey || event.altKey || touch.matches;
  if (line && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  at("ask").requestSubmit();
});

at("stop").addEventListener("click", () => {
  stop();
  focusText();
});
at("again").addEventListener("click", answerAgain);
at("copy").addEventListener("click", async () => {
  const done = await copy(thread.last.content);
  at("copy").textContent = done ? "Copied" : "Select the text to copy it";
});
at("new-chat").addEventListener("click", () => startOver());
at("earlier").addEventListener("click", async () => {
  const main = document.querySelector("main");
  const below = main.scrollHeight - main.scrollTop;
  await thread.showEarlier().catch(on.fail);
  main.scrollTop = main.scrollHeight - below;
  showState();
});
at("chat-menu").addEventListener("click", () => chatMenu({
  thread,
  side,
  changed: showState,
  fail: on.fail,
  gone: () => {
    startOver();
    side.load();
  },
}));
at("me").addEventListener("click", () => accountMenu({
  me,
  fail: on.fail,
  imported: async (ids) => {
    await side.loadFolders();
    await side.load();
    notice(ids.length + (ids.length === 1 ? " conversation was" : " conversations were") + " imported.");
  },
}));
at("sign-out").addEventListener("click", async () => {
  await send("POST", "logout").catch(on.fail);
  location.reload();
});

const panel = at("settings");
at("settings-form").addEventListener("submit", (event) => event.preventDefault());
at("settings-form").addEventListener("change", (event) => {
  if (event.target === at("api-key")) {
    useKey(at("api-key").value);
    begin();
  } else {
    keepSettings();
  }
});
at("model").addEventListener("change", keepSettings);
document.addEventListener("click", (event) => {
  if (!panel.contains(event.target)) panel.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (panel.open) {
    panel.open = false;
    panel.querySelector("summary").focus();
  } else if (at("side").classList.contains("open")) {
    side.close();
    at("open-side").focus();
  }
});
addEventListener("popstate", openAddress);

// Everything that needs to know who asks.
async function begin() {
  try {
    me = await whoAmI();
    at("me").textContent = me.name;
    at("sign-out").hidden = me.kind !== "account";
    at("admin").hidden = me.role !== "admin";
    at("key-field").hidden = me.kind === "account";
    await Promise.all([listModels(), side.loadFolders()]);
    notice("");
    if (!thread.last) await openAddress();
    await side.load();
  } catch (error) {
    const off = "This server keeps nothing (--database off), and the page needs that. The API works.";
    notice(error.status === 404 ? off : error.message);
  }
}

showState();
begin();
