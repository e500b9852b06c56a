// The page: sends what is typed, shows the answer as it comes, and the buttons.
import { copy } from "./clipboard.js";
import { Conversation, plainText } from "./conversation.js";
import { Follow } from "./follow.js";
import { MessageView } from "./message.js";
import { element } from "./patch.js";
import { ask, models, RequestFailed, tooLarge } from "./stream.js";

const at = (id) => document.getElementById(id);
const text = at("text");
const follow = new Follow(document.querySelector("main"));
const touch = matchMedia("(pointer: coarse)"); // no keyboard: Enter makes a line, focus stays away
const conversation = Conversation.recalled();
const views = conversation.messages.map(show); // as many as messages, and the answer being written
let running = null; // the AbortController of that answer

// --- showing

function show(message) {
  const view = new MessageView(message);
  at("log").append(view.box);
  return view;
}

function showState() {
  const { last, unanswered } = conversation;
  const writing = running !== null;
  at("send").hidden = writing;
  at("stop").hidden = !writing;
  at("new-chat").disabled = writing;
  at("model").disabled = writing;
  at("log").ariaBusy = String(writing);
  at("welcome").hidden = last !== undefined;
  at("after").hidden = writing || last === undefined;
  at("again").textContent = unanswered ? "Answer" : "Regenerate";
  at("copy").hidden = unanswered;
  at("copy").textContent = "Copy";
  at("ending").textContent = (last && last.ending) || "";
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

// --- talking

function settings() {
  const chosen = {};
  const fields = { temperature: "temperature", top_k: "top-k", max_tokens: "max-tokens" };
  for (const [field, id] of Object.entries(fields)) {
    if (at(id).value !== "") chosen[field] = Number(at(id).value);
  }
  if (at("model").value) chosen.model = at("model").value;
  return chosen;
}

// Answers the last question. An answer that it has already stays until the new one is complete.
async function answer() {
  if (running || !conversation.last) return;
  const old = conversation.unanswered ? null : views.pop();
  const message = { role: "assistant", content: [] };
  if (old) old.box.hidden = true;
  views.push(show(message));
  running = new AbortController();
  notice("");
  showState();
  follow.toEnd();
  const failure = await write(message, views[views.length - 1]);
  running = null;
  if (message.content.length && !(failure && old)) {
    conversation.answers(message);
    if (old) old.box.remove();
  } else {
    views.pop().box.remove();
    if (old) views.push(old);
    if (old) old.box.hidden = false;
    if (!failure) notice("The model answered with nothing.");
  }
  if (failure instanceof RequestFailed) notice(failure.message);
  if (failure && failure.refused && conversation.unanswered) takeBack(failure.message);
  showState();
  follow.grown();
}

// Asks, and shows the answer as it comes: at most one change for each frame. Returns what went wrong.
async function write(message, view) {
  const body = { messages: conversation.sent(), ...settings() };
  let due = 0;
  const draw = () => {
    due = 0;
    view.update(message);
    follow.grown();
  };
  view.box.classList.add("writing");
  try {
    await ask(body, at("api-key").value, running.signal, (data) => {
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
    draw();
  }
}

// One event of the stream: text, or the calculator's call or result, or how the answer ended.
function take(message, data) {
  for (const [kind, said] of [
    ["text", data.token],
    ["python", data.python],
    ["python_output", data.python_output],
  ]) {
    if (!said) continue;
    const last = message.content[message.content.length - 1];
    if (last && last.type === kind) last.text += said;
    else message.content.push({ type: kind, text: said });
  }
  if (!data.done) return;
  const { finish_detail: detail, dropped_turns: dropped } = data;
  if (detail) message.ending = detail;
  if (/^max_tokens=/.test(detail)) message.ending = "cut off after " + data.tokens + " tokens";
  if (dropped) {
    const turns = dropped === 1 ? "turn does" : dropped + " turns do";
    const full = "The conversation is longer than the model's context: the oldest ";
    notice(full + turns + " not count any more.");
  }
}

// What the server refused goes back to where it was typed, so that no later question carries it.
function takeBack(why) {
  const refused = conversation.takesBack();
  for (const view of views.splice(conversation.messages.length)) view.box.remove();
  type([refused, text.value].filter(Boolean).join("\n\n"));
  notice("Not sent: " + why);
  focusText();
}

function startOver() {
  conversation.clear();
  for (const view of views.splice(0)) view.box.remove();
  notice("");
  showState();
  focusText();
}

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

// --- the controls

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value.trim();
  if (!said || running) return;
  if (tooLarge(said)) {
    notice("Not sent: the message is too large.");
    return;
  }
  conversation.asks(said);
  views.push(show(conversation.last));
  type("");
  focusText();
  answer();
});

text.addEventListener("input", fitText);
text.addEventListener("keydown", (event) => {
  // 229: the key belongs to an input method, also where Safari says that nothing is composed.
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
  const line = event.shiftKey || event.altKey || touch.matches;
  if (line && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  at("ask").requestSubmit();
});

at("stop").addEventListener("click", () => {
  running.abort();
  focusText();
});
at("again").addEventListener("click", answer);
at("copy").addEventListener("click", async () => {
  const done = await copy(plainText(conversation.last));
  at("copy").textContent = done ? "Copied" : "Select the text to copy it";
});
at("new-chat").addEventListener("click", startOver);

const panel = at("settings");
at("settings-form").addEventListener("submit", (event) => event.preventDefault());
at("api-key").addEventListener("change", listModels);
document.addEventListener("click", (event) => {
  if (!panel.contains(event.target)) panel.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !panel.open || event.isComposing) return;
  panel.open = false;
  panel.querySelector("summary").focus();
});

showState();
follow.toEnd();
listModels();
