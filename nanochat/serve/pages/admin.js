// Sends the forms of the admin pages as JSON; the page is then loaded again as the server has it.
const csrf = document.querySelector("meta[name=csrf]").content;
const problem = document.getElementById("problem");

function fieldsOf(form, button) {
  const fields = {};
  for (const [name, value] of new FormData(form)) fields[name] = value;
  if (button && button.name) fields[button.name] = button.value;
  return fields;
}

function shown(reason) {
  problem.textContent = reason;
  problem.hidden = false;
  problem.scrollIntoView({ block: "nearest" });
}

async function send(form, fields) {
  const { confirm: name, ...body } = fields;
  if (name && !window.confirm(`Delete ${name} and everything that is theirs?`)) return;
  const answer = await fetch(form.dataset.address, {
    method: form.dataset.method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: form.dataset.method === "DELETE" ? undefined : JSON.stringify(body),
  });
  if (answer.ok) {
    window.location.reload();
    return;
  }
  const said = await answer.json().catch(() => null);
  shown(said && said.error ? said.error.message : `the server answered ${answer.status}`);
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const fields = fieldsOf(form, event.submitter);
  if ("query" in form.dataset) {
    window.location.search = new URLSearchParams(fields).toString();
    return;
  }
  const buttons = [...form.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  try {
    await send(form, fields);
  } catch {
    shown("the server cannot be reached");
  }
  for (const button of buttons) button.disabled = false;
});
