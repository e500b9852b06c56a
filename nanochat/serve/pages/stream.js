// Reading the events of an answer.
import { reply, RequestFailed } from "./server.js";

const MOST_BYTES = 2 << 20; // of a message: the server takes twice that

// Whether no server takes this text as a message. A browser needs seconds to show so much, so it is
// better not moved from where it was typed.
export const tooLarge = (text) => new Blob([JSON.stringify(text)]).size > MOST_BYTES;

// Asks in a conversation and calls `take` with each event's data until the answer is done. Rejects
// with RequestFailed or, when stopped, AbortError.
export async function ask(conversation, json, signal, take) {
  const path = "api/conversations/" + conversation + "/messages";
  const response = await reply(path, { method: "POST", json, signal });
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
      take(data);
      if (data.error) throw new RequestFailed(data.error.message || data.error);
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
