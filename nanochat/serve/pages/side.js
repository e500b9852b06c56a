// The list of conversations: search, folders, older ones.
import { askFor, choose } from "./dialog.js";
import { element } from "./patch.js";
import { call, send } from "./server.js";

const at = (id) => document.getElementById(id);
const PAUSE_MS = 200; // in typing, before it is searched

export class Side {
  // `open(id)` shows a conversation; `fail(error)` says what went wrong.
  constructor(open, fail) {
    this.openChat = open;
    this.fail = fail;
    this.current = null;
    this.folders = [];
    this.asked = 0;
    at("search").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.load(), PAUSE_MS);
    });
    at("folder").addEventListener("change", () => this.chosen());
    at("older").addEventListener("click", () => this.load(true));
    at("folder-menu").addEventListener("click", () => this.folderMenu());
    at("list").addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.close();
      this.openChat(link.dataset.id);
    });
    at("open-side").addEventListener("click", () => this.toggle());
    at("close-side").addEventListener("click", () => this.close());
    at("veil").addEventListener("click", () => this.close());
  }

  get folder() {
    return at("folder").value;
  }

  async loadFolders(chosen = this.folder) {
    this.folders = (await call("api/folders")).folders;
    const all = [["", "All conversations"], ...this.folders.map(({ id, name }) => [id, name])];
    at("folder").replaceChildren(...all.map(([id, name]) => {
      const option = element("option", name);
      option.value = id;
      return option;
    }));
    at("folder").value = this.folders.some(({ id }) => id === chosen) ? chosen : "";
  }

  // The list anew, or with `more` what follows it.
  async load(more = false) {
    const number = ++this.asked;
    const words = new URLSearchParams();
    if (at("search").value.trim()) words.set("search", at("search").value.trim());
    if (this.folder) words.set("folder", this.folder);
    const last = at("list").lastElementChild;
    if (more && last) words.set("after", last.querySelector("a").dataset.id);
    try {
      const { conversations, more: further } = await call("api/conversations?" + words);
      if (number !== this.asked) return; // a later search is on its way
      const rows = conversations.map((one) => this.row(one));
      if (more) at("list").append(...rows);
      else at("list").replaceChildren(...rows);
      at("older").hidden = !further;
      at("no-chats").hidden = at("list").children.length > 0;
      at("no-chats").textContent = words.size ? "Nothing found." : "No conversations yet.";
    } catch (error) {
      this.fail(error);
    }
  }

  row({ id, title }) {
    const link = element("a", title || "New chat");
    link.href = "?c=" + id;
    link.dataset.id = id;
    link.title = title;
    if (id === this.current) link.setAttribute("aria-current", "page");
    const row = element("li");
    row.append(link);
    return row;
  }

  mark(id) {
    this.current = id;
    for (const link of at("list").querySelectorAll("a")) {
      if (link.dataset.id === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  chosen() {
    this.load();
  }

  async folderMenu() {
    const chosen = this.folders.find(({ id }) => id === this.folder);
    const actions = [["New folder", () => this.newFolder()]];
    if (chosen) {
      actions.push(["Rename “" + chosen.name + "”", () => this.renameFolder(chosen)]);
      actions.push(["Remove “" + chosen.name + "”", () => this.removeFolder(chosen), true]);
    }
    await choose("Folders", actions);
  }

  async newFolder() {
    const said = await askFor("New folder", [{ name: "name", label: "Name" }], { yes: "Create" });
    if (!said) return null;
    return this.doing(async () => {
      const made = await send("POST", "api/folders", said);
      await this.loadFolders(this.folder);
      return made;
    });
  }

  async renameFolder({ id, name }) {
    const said = await askFor("Rename folder", [{ name: "name", label: "Name", value: name }]);
    if (said) await this.doing(() => send("PATCH", "api/folders/" + id, said));
    await this.loadFolders();
  }

  async removeFolder({ id, name }) {
    const text = "The conversations in “" + name + "” stay.";
    const sure = await askFor("Remove folder?", [], { yes: "Remove", text, danger: true });
    if (!sure) return;
    await this.doing(() => send("DELETE", "api/folders/" + id));
    await this.loadFolders();
    await this.load();
  }

  async doing(work) {
    try {
      return await work();
    } catch (error) {
      this.fail(error);
      return null;
    }
  }

  toggle() {
    if (at("side").classList.toggle("open")) at("search").focus();
    this.shown();
  }

  close() {
    at("side").classList.remove("open");
    this.shown();
  }

  shown() {
    const open = at("side").classList.contains("open");
    at("open-side").setAttribute("aria-expanded", String(open));
    at("veil").hidden = !open;
  }
}
