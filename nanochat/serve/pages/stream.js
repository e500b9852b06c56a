// Asking the server and reading its stream of events.

export class RequestFailed extends Error {}

function withKey(key, headers = {}) {
  return key ? { ...headers, Authorization: "Bearer " + key } : headers;
}

async function complaint(response) {
  let said = "";
  try {
    said = (await response.json()).error.message;
  } catch {
    said = response.statusText;
  }
  if (response.status === 429) {
    const wait = response.headers.get("Retry-After");
    said = "The server is busy" + (wait ? ", try again in " + wait + " s." : ", try again later.");
  }
  if (response.status === 401) said = "An API key is needed: enter it under Settings. (" + said + ")";
  return new RequestFailed(said || "HTTP " + response.status);
}

// Calls `take` with each event's data until the answer is done. Rejects with RequestFailed or, when stopped, AbortError.
export async function ask(body, key, signal, take) {
  const response = await fetch("/chat/completions", {
    method: "POST",
    headers: withKey(key, { "Content-Type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await complaint(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new RequestFailed("The connection ended in the middle of the answer.");
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const text of events) {
      if (!text.startsWith("data: ")) continue;
      const data = JSON.parse(text.slice(6));
      take(data);
      if (data.done) return;
    }
  }
}

export async function models(key) {
  const response = await fetch("/v1/models", { headers: withKey(key) });
  if (!response.ok) throw await complaint(response);
  return (await response.json()).data.map((model) => model.id);
}
