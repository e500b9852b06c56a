// What was said: questions and answers in order, remembered for a reload of this tab.
//
// A question without an answer may only stand at the end: the server was busy, the page was reloaded
// in mid-answer, or the person stopped it before it began.

const STORED = "nanochat-conversation";
const MOST_MESSAGES = 1000; // of what is sent: far more than a model's context holds, and fewer
const MOST_CHARACTERS = 1 << 18; // than the 2,048 messages and 4 MiB that a server takes
const PARTS = ["text", "python", "python_output"];

export class Conversation {
  constructor(messages = []) {
    this.messages = messages;
  }

  static recalled() {
    try {
      const stored = JSON.parse(sessionStorage.getItem(STORED)).filter(wellFormed);
      while (stored.length && stored[0].role !== "user") stored.shift();
      return new Conversation(stored);
    } catch {
      return new Conversation(); // nothing is stored, or not by this version of the page
    }
  }

  get last() {
    return this.messages[this.messages.length - 1];
  }

  get unanswered() {
    return this.last !== undefined && this.last.role === "user";
  }

  asks(content) {
    this.messages.push({ role: "user", content });
    this.remember();
  }

  // A finished answer, in place of the one there is when the question is answered again.
  answers(message) {
    if (this.last.role === "assistant") this.messages.pop();
    this.messages.push(message);
    this.remember();
  }

  // Takes back the questions at the end, which the server refused, and returns their text.
  takesBack() {
    const refused = [];
    while (this.unanswered) refused.unshift(this.messages.pop().content);
    this.remember();
    return refused.join("\n\n");
  }

  clear() {
    this.messages = [];
    this.remember();
  }

  // What is sent to get the last question answered: the newest messages, as many as a server takes,
  // beginning with a question. Questions that follow each other are one.
  sent() {
    const asked = this.unanswered ? this.messages : this.messages.slice(0, -1);
    const turns = [];
    let characters = 0;
    for (const { role, content } of asked.slice(-MOST_MESSAGES).reverse()) {
      characters += JSON.stringify(content).length;
      if (turns.length && characters > MOST_CHARACTERS) break;
      if (role === "user" && turns.length && turns[0].role === "user") {
        turns[0].content = content + "\n\n" + turns[0].content;
      } else {
        turns.unshift({ role, content });
      }
    }
    while (turns[0].role !== "user") turns.shift();
    return turns;
  }

  remember() {
    try {
      sessionStorage.setItem(STORED, JSON.stringify(this.messages));
    } catch {
      // storage is full or switched off: the conversation lasts as long as the page
    }
  }
}

export function plainText(message) {
  if (typeof message.content === "string") return message.content;
  const said = message.content.filter((part) => part.type === "text");
  return said.map((part) => part.text).join("");
}

function wellFormed(message) {
  if (message.role === "user") return typeof message.content === "string";
  return message.role === "assistant" && Array.isArray(message.content)
    && message.content.every((part) => PARTS.includes(part.type) && typeof part.text === "string");
}
