// The open conversation: what is shown of it, and what the server knows.
import { MessageView } from "./message.js";
import { send, call } from "./server.js";

const at = (id) => document.getElementById(id);

export class Thread {
  // `dress(view)` puts the buttons of a message below it.
  constructor(dress) {
    this.dress = dress;
    this.clear();
  }

  clear() {
    for (const view of this.views || []) view.box.remove();
    this.about = null; // of the conversation: null before the first question
    this.views = [];
    this.earlier = 0;
    this.shared = null; // the id of the link by which somebody else shows it
  }

  get id() {
    return this.about && this.about.id;
  }

  get last() {
    const view = this.views[this.views.length - 1];
    return view && view.message;
  }

  get unanswered() {
    return this.last !== undefined && this.last.role === "user";
  }

  get path() {
    return this.shared ? "api/shared/" + this.shared : "api/conversations/" + this.id;
  }

  async open(id) {
    const data = await call("api/conversations/" + id);
    this.clear();
    this.take(data);
  }

  async openShared(id) {
    const data = await call("api/shared/" + id);
    this.clear();
    this.shared = id;
    this.take(data);
  }

  // As the server has it now.
  async refresh() {
    this.take(await call(this.path));
  }

  // Makes the page show a conversation; what it shows already stays untouched.
  take({ messages, earlier, ...about }) {
    this.about = about;
    const known = new Map(this.views.map((view) => [view.message.id, view]));
    const first = messages.length ? messages[0].id : null;
    const place = this.views.findIndex((view) => view.message.id === first);
    const before = place > 0 ? this.views.slice(0, place) : []; // shown earlier parts stay
    const views = messages.map((message) => {
      const view = known.get(message.id) || new MessageView(message);
      if (known.has(message.id)) view.update(message);
      return view;
    });
    for (const view of this.views) if (![...before, ...views].includes(view)) view.box.remove();
    this.views = [...before, ...views];
    this.earlier = before.length ? this.earlier : earlier;
    at("log").append(...this.views.map((view) => view.box));
    for (const view of this.views) this.dress(view);
  }

  async showEarlier() {
    const first = this.views[0].message.id;
    const { messages, earlier } = await call(this.path + "?before=" + first);
    const views = messages.map((message) => new MessageView(message));
    at("log").prepend(...views.map((view) => view.box));
    this.views.unshift(...views);
    this.earlier = earlier;
    for (const view of views) this.dress(view);
  }

  // The conversation on the server, made when there is none yet.
  async ensure(settings) {
    if (this.about) return;
    const { messages, earlier, ...about } = await send("POST", "api/conversations", settings);
    this.about = about;
  }

  async change(what) {
    if (this.id) this.about = await send("PATCH", this.path, what);
  }

  async showVersion(message) {
    this.take(await send("PUT", this.path + "/active", { message }));
  }

  add(message) {
    const view = new MessageView(message);
    at("log").append(view.box);
    this.views.push(view);
    return view;
  }

  drop(view) {
    view.box.remove();
    this.views = this.views.filter((other) => other !== view);
  }
}
