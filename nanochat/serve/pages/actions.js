// The buttons below a message: versions, edit, copy, and what the reader thinks of an answer.
import { copy } from "./clipboard.js";
import { askFor } from "./dialog.js";
import { element } from "./patch.js";
import { send } from "./server.js";

// `on`: { busy(), edit(view), version(id), fail(error) } of the page.
export function dress(view, on, readOnly) {
  const { message, tools } = view;
  const buttons = [];
  const versions = message.versions || [];
  const place = versions.indexOf(message.id);
  if (versions.length > 1 && place >= 0 && !readOnly) buttons.push(switcher(versions, place, on));
  if (message.role === "user" && message.id && !readOnly) {
    buttons.push(button("Edit", "Edit this question and ask again", () => on.edit(view)));
  }
  if (message.role === "assistant" && message.id && !message.growing) {
    const copying = button("Copy", "Copy this answer", async () => {
      copying.textContent = (await copy(message.content)) ? "Copied" : "Select the text to copy it";
    });
    copying.className += " copying";
    buttons.push(copying);
    if (!readOnly) buttons.push(...votes(view, on));
  }
  const focused = [...tools.children].indexOf(document.activeElement);
  tools.replaceChildren(...buttons);
  if (focused >= 0 && tools.children[focused]) tools.children[focused].focus();
}

function button(text, label, action) {
  const made = element("button", text, "plain small");
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.title = label;
  made.addEventListener("click", action);
  return made;
}

function switcher(versions, place, on) {
  const box = element("span", undefined, "versions");
  const step = (sign, label, to) => {
    const made = button(sign, label, () => on.busy() || on.version(versions[to]));
    made.disabled = to < 0 || to >= versions.length;
    return made;
  };
  const count = element("span", place + 1 + "/" + versions.length, "quiet");
  box.append(step("‹", "Earlier version", place - 1), count, step("›", "Later version", place + 1));
  return box;
}

function votes(view, on) {
  const { message } = view;
  const given = message.feedback ? message.feedback.vote : 0;
  const make = (sign, label, vote) => {
    const made = button(sign, label, async () => {
      await vouch(view, on, { vote: given === vote ? 0 : vote });
      if (vote < 0 && given !== vote) await correct(view, on);
    });
    made.setAttribute("aria-pressed", String(given === vote));
    return made;
  };
  const made = [make("Good", "Good answer", 1), make("Bad", "Bad answer", -1)];
  if (given) made.push(button("Comment", "Comment or correct", () => correct(view, on)));
  return made;
}

async function correct(view, on) {
  const old = view.message.feedback || {};
  const said = await askFor("What was wrong?", [
    { name: "comment", label: "Comment", value: old.comment || "" },
    {
      name: "corrected",
      label: "The right answer",
      kind: "textarea",
      value: old.corrected || "",
      placeholder: "As the model should have said it; it may learn from this",
    },
  ]);
  if (said) await vouch(view, on, { ...said, corrected: said.corrected || null });
}

async function vouch(view, on, change) {
  const { message } = view;
  const feedback = { vote: 0, comment: "", corrected: null, ...message.feedback, ...change };
  try {
    await send("POST", "api/feedback", { message: message.id, ...feedback });
    message.feedback = feedback;
    dress(view, on);
  } catch (error) {
    on.fail(error);
  }
}
