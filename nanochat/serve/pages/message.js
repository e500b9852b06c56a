// A message on the page. An answer grows: only the block that is being written is looked at again.
// When it is whole, the server's rendering takes the place of the page's own.
import { pieces } from "./clean.js";
import { mark, unmarked } from "./inline.js";
import { blocks } from "./markdown.js";
import { element, patch } from "./patch.js";

const MOST_SHOWN = 50000; // characters of a question: a browser takes seconds to lay out megabytes
const SPEAKER = { user: "You", assistant: "Answer", system: "System" };

export class MessageView {
  constructor(message) {
    this.message = message;
    this.box = element("article", undefined, "message " + message.role);
    this.box.setAttribute("aria-label", SPEAKER[message.role]);
    this.body = element("div", undefined, "body");
    this.tools = element("div", undefined, "tools");
    this.box.append(this.body, this.tools);
    this.begin();
    this.update(message);
  }

  // From the beginning: another version of the message is to be shown.
  begin() {
    this.settledText = 0; // characters whose blocks will not change any more
    this.settledBlocks = 0;
  }

  // Shows a message that is longer than at the last call, or the same, or now whole.
  update(message) {
    this.message = message;
    if (message.role !== "assistant") {
      this.showQuestion(message);
    } else if (message.html !== undefined && !message.growing) {
      patch(this.body, pieces(message.html));
    } else {
      const [text, tools] = marked(message.parts || message.content);
      const found = blocks(text.slice(this.settledText), tools);
      patch(this.body, found.map((block) => block.tree), this.settledBlocks);
      this.settle(text, found);
    }
  }

  showQuestion({ content, attachments }) {
    const long = content.length > MOST_SHOWN;
    const files = (attachments || []).map((file) => ["span", { class: "file" }, described(file)]);
    patch(this.body, [...files, long ? content.slice(0, MOST_SHOWN) + " …" : content]);
  }

  // What more text can change is the last block that began before the line now being written: its
  // next line may still belong to it.
  settle(text, found) {
    const line = text.lastIndexOf("\n") + 1 - this.settledText;
    const open = found.filter((block) => block.start < line).length - 1;
    if (open < 1) return;
    this.settledBlocks += open;
    this.settledText += found[open].start;
  }
}

// A file's name, what it takes, and what was left out of it.
export function described({ name, tokens, cut_tokens: cut }) {
  if (cut && tokens < 50) return name + " (did not fit)";
  const left = cut ? ", " + cut.toLocaleString() + " more did not fit" : "";
  return name + " (" + tokens.toLocaleString() + " tokens" + left + ")";
}

// An answer's parts as one text, with a mark for each use of a tool, and what the marks stand for.
function marked(content) {
  const tools = [];
  let text = "";
  let called = false;
  for (const part of typeof content === "string" ? [{ type: "text", text: content }] : content) {
    if (part.type === "text") {
      text += unmarked(part.text);
    } else if (part.type.endsWith("_output") && called) {
      tools[tools.length - 1][2] += " = " + part.text;
    } else {
      text += mark(tools.length);
      tools.push(["span", { class: "tool" }, part.text]);
    }
    called = part.type !== "text" && !part.type.endsWith("_output");
  }
  return [text.replace(/\r\n?/g, "\n"), tools];
}
