// A message on the page. An answer grows: only the block that is being written is looked at again.
import { mark, unmarked } from "./inline.js";
import { blocks } from "./markdown.js";
import { element, patch } from "./patch.js";

const MOST_SHOWN = 50000; // characters of a question: a browser takes seconds to lay out megabytes
const SPEAKER = { user: "You", assistant: "Answer" };

export class MessageView {
  constructor(message) {
    this.box = element("article", undefined, "message " + message.role);
    this.box.setAttribute("aria-label", SPEAKER[message.role]);
    this.settledText = 0; // characters whose blocks will not change any more
    this.settledBlocks = 0;
    this.update(message);
  }

  // Shows a message that is longer than at the last call, or the same.
  update(message) {
    if (message.role === "user") {
      const { content } = message;
      const long = content.length > MOST_SHOWN;
      this.box.textContent = long ? content.slice(0, MOST_SHOWN) + " …" : content;
      return;
    }
    const [text, tools] = marked(message.content);
    const found = blocks(text.slice(this.settledText), tools);
    patch(this.box, found.map((block) => block.tree), this.settledBlocks);
    this.settle(text, found);
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

// An answer's parts as one text, with a mark for each use of the calculator, and what the marks
// stand for.
function marked(content) {
  const tools = [];
  let text = "";
  let called = false;
  for (const part of typeof content === "string" ? [{ type: "text", text: content }] : content) {
    if (part.type === "text") {
      text += unmarked(part.text);
    } else if (part.type === "python_output" && called) {
      tools[tools.length - 1][2] += " = " + part.text;
    } else {
      text += mark(tools.length);
      tools.push(["span", { class: "tool" }, part.text]);
    }
    called = part.type === "python";
  }
  return [text.replace(/\r\n?/g, "\n"), tools];
}
