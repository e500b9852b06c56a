// Asking the server: everything goes below the folder that the page itself came from.

const BASE = new URL("..", import.meta.url);
const LATER = [401, 403, 408, 425, 429]; // fine once there is a key, a session, or less to do

let csrf = ""; // what changes have to repeat in a signed-in browser
let key = "";

export const useKey = (typed) => { key = typed; };

// `refused`: the request is at fault and will be refused again, however often it is sent.
export class RequestFailed extends Error {
  constructor(said, refused = false, status = 0) {
    super(said);
    this.refused = refused;
    this.status = status;
  }
}

// The response to a request, if it is fine; RequestFailed, or AbortError when stopped.
export async function reply(path, { method = "GET", json, body, signal } = {}) {
  const headers = {};
  if (key) headers.Authorization = "Bearer " + key;
  if (csrf && method !== "GET") headers["X-CSRF-Token"] = csrf;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const sent = json === undefined ? body : JSON.stringify(json);
  let response;
  try {
    response = await fetch(new URL(path, BASE), { method, headers, body: sent, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestFailed("The server cannot be reached.");
  }
  if (!response.ok) throw await complaint(response);
  return response;
}

// The data in the answer.
export async function call(path, options) {
  const response = await reply(path, options);
  return response.status === 204 ? null : response.json();
}

export const send = (method, path, json) => call(path, { method, json });

// Who asks, and whether there are accounts.
export async function whoAmI() {
  const me = await call("api/me");
  csrf = me.csrf || "";
  return me;
}

export async function models() {
  return (await call("v1/models")).data;
}

async function complaint(response) {
  const { status } = response;
  let said = "";
  let code = "";
  try {
    const { error } = await response.json();
    said = error.message;
    code = error.code;
  } catch {
    said = status === 413 ? "The message is too large." : response.statusText;
  }
  if (code === "not_signed_in") location.assign(new URL("login", BASE));
  if (status === 429) {
    const wait = response.headers.get("Retry-After");
    const busy = "The server is busy" + (wait ? ", try again in " + wait + " s." : ", try again later.");
    said = /account|key may/.test(said) ? said : busy;
  }
  if (code === "no_api_key" || code === "invalid_api_key") {
    said = "An API key is needed: enter it under Settings. (" + said + ")";
  }
  const refused = status >= 400 && status < 500 && !LATER.includes(status);
  return new RequestFailed(said || "HTTP " + status, refused, status);
}
