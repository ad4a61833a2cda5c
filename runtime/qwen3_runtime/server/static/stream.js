// Requests to the server, and server-sent events out of bytes cut anywhere.

/** A failure that the server or the way to it names. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Splits text into the data of server-sent events; text may be cut anywhere. */
export class EventParser {
  #rest = "";
  #data = [];

  /** Returns the data of every event that is complete now. */
  add(text) {
    const events = [];
    this.#rest += text;
    // A carriage return at the end may be half of a line end.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}

/** Yields the data of a response's events until [DONE] or its end. */
export async function* readEvents(response) {
  const parser = new EventParser();
  const decoder = new TextDecoder(); // keeps the bytes of a character that is cut
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const event of parser.add(decoder.decode(value, { stream: true }))) {
        if (event === "[DONE]") return;
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Throws what a response that is no success says, readably. */
export async function requireSuccess(response) {
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // No error object: a proxy's page, say. The status must do.
  }
  throw new ServerError(message, response.status);
}

/** Yields the chunks of a streamed chat completion. */
export async function* readChunks(response) {
  for await (const event of readEvents(response)) {
    const chunk = JSON.parse(event);
    if (chunk.error) throw new ServerError(chunk.error.message);
    yield chunk;
  }
}
