// Files for the next question: picked, dropped or pasted, read by the server, listed with what they
// take of the context.
import { described } from "./message.js";
import { element } from "./patch.js";
import { call } from "./server.js";

const at = (id) => document.getElementById(id);

export class Files {
  // `model()` names the one that will read them; `fail(error)` says what could not be read.
  constructor(model, fail) {
    this.model = model;
    this.fail = fail;
    this.files = [];
    this.reading = 0;
    at("attach").addEventListener("click", () => at("pick").click());
    at("pick").addEventListener("change", () => {
      this.add([...at("pick").files]);
      at("pick").value = "";
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.add([...event.dataTransfer.files]);
    });
    at("text").addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (!files.length) return;
      event.preventDefault();
      this.add(files);
    });
  }

  async add(picked) {
    for (const file of picked) {
      this.reading += 1;
      this.show();
      try {
        const words = new URLSearchParams({ name: file.name, model: this.model() });
        this.files.push(await call("api/attachments?" + words, { method: "POST", body: file }));
      } catch (error) {
        this.fail(error);
      }
      this.reading -= 1;
      this.show();
    }
  }

  // Their ids, and none are left.
  take() {
    const taken = this.files;
    this.files = [];
    this.show();
    return taken;
  }

  putBack(files) {
    this.files = [...files, ...this.files];
    this.show();
  }

  show() {
    const rows = this.files.map((file) => {
      const row = element("li", [described(file), ...file.notes].join("; "));
      if (file.cut_tokens) row.className = "cut";
      const remove = element("button", "×", "plain small");
      remove.type = "button";
      remove.setAttribute("aria-label", "Remove " + file.name);
      remove.addEventListener("click", () => {
        this.files = this.files.filter((other) => other !== file);
        this.show();
        at("attach").focus();
      });
      row.append(remove);
      return row;
    });
    if (this.reading) rows.push(element("li", "Reading …"));
    at("files").replaceChildren(...rows);
    at("files").hidden = rows.length === 0;
  }
}
