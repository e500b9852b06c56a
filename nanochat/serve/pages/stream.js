// Asking the server and reading its stream of events.

// `refused`: the request is at fault and will be refused again, however often it is sent.
export class RequestFailed extends Error {
  constructor(said, refused = false) {
    super(said);
    this.refused = refused;
  }
}

const MOST_BYTES = 2 << 20; // of a message: the server takes twice that, with what was said before
const LATER = [401, 408, 425, 429]; // fine once there is a key, or less to do

function withKey(key, headers = {}) {
  return key ? { ...headers, Authorization: "Bearer " + key } : headers;
}

async function reply(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestFailed("The server cannot be reached.");
  }
  if (!response.ok) throw await complaint(response);
  return response;
}

async function complaint(response) {
  const { status } = response;
  let said = "";
  try {
    said = (await response.json()).error.message;
  } catch {
    said = status === 413 ? "The message is too large." : response.statusText;
  }
  if (status === 429) {
    const wait = response.headers.get("Retry-After");
    said = "The server is busy" + (wait ? ", try again in " + wait + " s." : ", try again later.");
  }
  if (status === 401) said = "An API key is needed: enter it under Settings. (" + said + ")";
  const refused = status >= 400 && status < 500 && !LATER.includes(status);
  return new RequestFailed(said || "HTTP " + status, refused);
}

// Whether no server takes this text as a message. A browser needs seconds to show so much, so it is
// better not moved from where it was typed.
export const tooLarge = (text) => new Blob([JSON.stringify(text)]).size > MOST_BYTES;

// Calls `take` with each event's data until the answer is done. Rejects with RequestFailed or, when
// stopped, AbortError.
export async function ask(body, key, signal, take) {
  const response = await reply("/chat/completions", {
    method: "POST",
    headers: withKey(key, { "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await chunk(reader);
    if (done) throw new RequestFailed("The connection ended in the middle of the answer.");
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const text of events) {
      if (!text.startsWith("data: ")) continue;
      const data = JSON.parse(text.slice(6));
      if (data.error) throw new RequestFailed(data.error.message || data.error);
      take(data);
      if (data.done) return;
    }
  }
}

async function chunk(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestFailed("The connection broke in the middle of the answer.");
  }
}

export async function models(key) {
  const response = await reply("/v1/models", { headers: withKey(key) });
  return (await response.json()).data.map((model) => model.id);
}
