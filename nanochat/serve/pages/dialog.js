// Small dialogs: a question with fields, buttons, and what was chosen. The browser keeps the focus
// inside, gives it back, and closes them on Escape.
import { element } from "./patch.js";

const box = document.getElementById("dialog");

// Asks for the fields [{ name, label, value, kind, options }] -> their values by name, or null when
// the person leaves. `danger`: the button is one that takes something away.
export function askFor(title, fields, { yes = "Save", text = "", danger = false } = {}) {
  const form = element("form");
  form.method = "dialog";
  if (text) form.append(element("p", text));
  const inputs = fields.map((field) => {
    const input = control(field);
    const label = element("label", field.label);
    label.append(input);
    form.append(label);
    return [field.name, input];
  });
  const buttons = element("div", undefined, "row buttons");
  const leave = element("button", "Cancel", "plain");
  leave.type = "button";
  leave.addEventListener("click", () => box.close());
  const go = element("button", yes, danger ? "danger" : "main");
  go.value = "yes";
  buttons.append(leave, go);
  form.append(buttons);
  return show(title, form).then((chosen) => (
    chosen === "yes" ? Object.fromEntries(inputs.map(([name, input]) => [name, input.value])) : null
  ));
}

// A list of actions [[label, action]]; runs the chosen one.
export function choose(title, actions) {
  const list = element("div", undefined, "choices");
  let chosen = null;
  for (const [label, action, danger] of actions) {
    const button = element("button", label, danger ? "danger" : "plain");
    button.type = "button";
    button.addEventListener("click", () => {
      chosen = action;
      box.close();
    });
    list.append(button);
  }
  return show(title, list).then(() => chosen && chosen());
}

// Shows something until it is closed -> the value of the button that closed it.
export function show(title, ...content) {
  const heading = element("h2", title);
  heading.id = "dialog-title";
  box.setAttribute("aria-labelledby", "dialog-title");
  const close = element("button", "×", "plain close");
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", () => box.close());
  box.replaceChildren(close, heading, ...content);
  box.returnValue = "";
  box.showModal();
  const first = box.querySelector("input, textarea, select, .choices button, .main");
  if (first) first.focus();
  return new Promise((done) => {
    box.addEventListener("close", () => done(box.returnValue), { once: true });
  });
}

box.addEventListener("click", (event) => {
  if (event.target === box) box.close(); // beside it
});

function control({ value = "", kind = "input", type = "text", options = [], placeholder = "" }) {
  const input = element(kind);
  if (kind === "input") input.type = type;
  for (const [key, label] of options) {
    const option = element("option", label);
    option.value = key;
    input.append(option);
  }
  if (kind === "textarea") input.rows = 6;
  input.value = value;
  if (placeholder) input.placeholder = placeholder;
  return input;
}
