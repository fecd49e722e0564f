// Server-sent events over fetch, because EventSource cannot carry an Authorization header.
// Reconnects with backoff and jitter, resumes with Last-Event-ID, gives up a silent connection.

import { headers, refusal } from "./api.js";

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MOST_MS = 10_000;
const FRAME_CHARS_MOST = 4 * 1024 * 1024;

/** Cuts a text stream into frames {id, event, data}; comments and unknown fields are dropped. */
export class Frames {
  constructor() {
    this.rest = "";
    this.frame = {};
    this.id = null;
    this.retryMs = null;
  }

  /** Takes the next piece; answers the frames it completed. @param {string} piece */
  push(piece) {
    const lines = (this.rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    if (this.rest.length > FRAME_CHARS_MOST) throw new Error("frame too long");
    return lines.map((line) => this.line(line)).filter(Boolean);
  }

  line(line) {
    if (line === "") {
      const { event = "message", data } = this.frame;
      this.frame = {};
      return data === undefined ? null : { id: this.id, event, data };
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (name === "data") this.frame.data = this.frame.data === undefined ? value : `${this.frame.data}\n${value}`;
    else if (name === "event") this.frame.event = value;
    else if (name === "id") this.id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Math.min(Number(value), BACKOFF_MOST_MS);
    return null;
  }
}

/**
 * Follows a stream until `stop` is called.
 * @param {string} path
 * @param {object} options
 * @param {(frame: {id: ?string, event: string, data: string}) => void} options.onFrame
 * @param {(state: "connecting"|"live"|"waiting", cause: ?Error) => void} options.onState
 * @param {number} options.silenceMs   how long a live connection may say nothing, heartbeats included
 * @returns {{restart: () => void, stop: () => void}} restart reconnects at once, as after a new token
 */
export function follow(path, { onFrame, onState, silenceMs }) {
  let attempt = null;
  let timer = 0;
  let failures = 0;
  let lastId = null;

  async function connect() {
    const mine = new AbortController();
    attempt = mine;
    let cause = null;
    let retryMs = null;
    onState("connecting", null);
    try {
      retryMs = await read(mine);
    } catch (error) {
      cause = error;
    }
    if (attempt !== mine) return;
    onState("waiting", cause);
    const ceiling = Math.min(BACKOFF_FIRST_MS * 2 ** failures, BACKOFF_MOST_MS);
    failures += 1;
    timer = setTimeout(connect, retryMs ?? ceiling * (0.5 + Math.random() / 2));
  }

  /** Reads one connection to its end; answers the delay the server asked for, if it did. */
  async function read(mine) {
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => mine.abort(new Error("the stream fell silent")), silenceMs);
    };
    heard();
    try {
      const resume = lastId === null ? {} : { "last-event-id": lastId };
      const response = await fetch(path, {
        headers: headers({ accept: "text/event-stream", ...resume }),
        credentials: "omit",
        cache: "no-store",
        signal: mine.signal,
      });
      if (!response.ok) throw await refusal(response);
      onState("live", null);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const frames = new Frames();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || attempt !== mine) return frames.retryMs;
        heard();
        for (const frame of frames.push(value)) {
          failures = 0;
          lastId = frame.id ?? lastId;
          onFrame(frame);
        }
      }
    } finally {
      clearTimeout(silence);
    }
  }

  function halt() {
    const last = attempt;
    attempt = null;
    clearTimeout(timer);
    last?.abort();
  }

  connect();
  return {
    stop: halt,
    restart() {
      halt();
      failures = 0;
      connect();
    },
  };
}
