// What one does with the open conversation: rename, folder, share, export, delete.
import { copy } from "./clipboard.js";
import { askFor, choose, show } from "./dialog.js";
import { element } from "./patch.js";
import { reply, send } from "./server.js";

// `thread` is the open conversation, `side` the list; `gone()` when it was removed, `changed()` when
// it looks different now, `fail(error)`.
export function chatMenu({ thread, side, gone, changed, fail }) {
  const doing = (work) => async () => {
    try {
      await work();
    } catch (error) {
      fail(error);
    }
  };
  return choose("This conversation", [
    ["Rename", doing(() => rename(thread, side, changed))],
    ["Move to folder", doing(() => move(thread, side))],
    ["Share", doing(() => share(thread, changed))],
    ["Export as Markdown", doing(() => save(thread.path + "/export?form=markdown"))],
    ["Export as JSON", doing(() => save(thread.path + "/export?form=json"))],
    ["Delete", doing(() => remove(thread, gone)), true],
  ]);
}

async function rename(thread, side, changed) {
  const field = { name: "title", label: "Title", value: thread.about.title };
  const said = await askFor("Rename conversation", [field]);
  if (!said) return;
  await thread.change(said);
  changed();
  await side.load();
}

async function move(thread, side) {
  const options = [["", "None"], ...side.folders.map(({ id, name }) => [id, name]), ["+", "New …"]];
  const said = await askFor("Move to folder", [
    { name: "folder", label: "Folder", kind: "select", options, value: thread.about.folder || "" },
  ], { yes: "Move" });
  if (!said) return;
  const made = said.folder === "+" ? await side.newFolder() : { id: said.folder };
  if (made) await thread.change({ folder: made.id });
  await side.load();
}

async function share(thread, changed) {
  const old = thread.about.share;
  const said = await askFor("Share with", [
    { name: "people", label: "People, by their names", value: old ? old.people.join(", ") : "" },
    { name: "groups", label: "Groups", value: old ? old.groups.join(", ") : "" },
  ], {
    yes: "Share",
    text: "Those you name can read this conversation by its link, now and as it goes on; nobody "
      + "else can. Leave both empty to stop sharing.",
  });
  if (!said) return;
  const names = (text) => text.split(/[,;\s]+/).filter(Boolean);
  const audience = { people: names(said.people), groups: names(said.groups) };
  if (audience.people.length + audience.groups.length === 0) {
    if (old) await send("DELETE", thread.path + "/share");
    thread.about.share = null;
  } else {
    thread.about.share = await send("PUT", thread.path + "/share", audience);
    await showLink(thread.about.share);
  }
  changed();
}

async function showLink({ id, people, groups }) {
  const link = new URL("?s=" + id, location.href).href;
  const field = element("input");
  field.readOnly = true;
  field.value = link;
  field.setAttribute("aria-label", "Link");
  const button = element("button", "Copy link", "main");
  button.type = "button";
  button.addEventListener("click", async () => {
    button.textContent = (await copy(link)) ? "Copied" : "Select the link to copy it";
  });
  const who = "Readable by " + [...people, ...groups].join(", ") + ".";
  await show("Shared", element("p", who), field, button);
}

async function remove(thread, gone) {
  const text = "It is gone for good, with all its versions and files.";
  const sure = await askFor("Delete conversation?", [], { yes: "Delete", text, danger: true });
  if (!sure) return;
  await send("DELETE", thread.path);
  gone();
}

// Saves what the server sends as a file of the name it gives.
export async function save(path) {
  const response = await reply(path);
  const given = response.headers.get("Content-Disposition") || "";
  const name = decodeURIComponent((given.match(/UTF-8''([^;]+)/) || [])[1] || "conversation");
  const link = element("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
