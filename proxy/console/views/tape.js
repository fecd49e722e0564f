// The event tape: newest on top, bounded, drawn at most five times a second; pause and filter.

import { el, emptyNote, keyed, mark, row, text } from "../dom.js";
import { clockMs, compact, number, price } from "../format.js";

const KEPT_MOST = 1000;
const SHOWN_MOST = 120;
const FLUSH_MS = 200;
const RATE_WINDOW_MS = 5000;
const WORDS_MOST = 160;

const SUMMARIES = {
  market_data_update: ({ close, volume, timeframe }) =>
    close === undefined ? null : `${price(close)}  vol ${compact(volume)}${timeframe ? `  ${timeframe}` : ""}`,
  trading_signal: ({ action, signal, confidence, strategy, reason }) =>
    [action ?? signal, confidence === undefined ? null : number(Number(confidence), 2), strategy, reason]
      .filter(Boolean)
      .join("  "),
};

/** Names with their values, nested ones as JSON; the symbol has its own column. */
const plain = (data) =>
  Object.entries(data ?? {})
    .filter(([name]) => name !== "symbol")
    .map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join("  ");

/** One line of what an event says, never longer than the bound. */
export function summary({ event_type: type, data }) {
  const words = SUMMARIES[type]?.(data ?? {}) ?? plain(data);
  return words.slice(0, WORDS_MOST);
}

const TONES = {
  trading_signal: "accent",
  risk_alert: "warn", security_alert: "warn", circuit_breaker_state: "warn", gap: "warn", stream_gap: "warn",
  kill_switch: "bad",
};

/** @param {HTMLElement} root @param {{pickSymbol: (symbol: string) => void}} page */
export function mount(root, page) {
  const body = root.querySelector("tbody");
  const note = root.querySelector(".note");
  const filter = root.querySelector("input");
  const button = root.querySelector("[data-act=pause]");
  const arrivals = [];
  let kept = [];
  let paused = false;
  let missed = 0;
  let dirty = false;
  let unnamed = 0;
  let trouble = null;

  /** Gives an event its key and the text the filter looks at. */
  function wrap(event) {
    const symbol = event.data?.symbol ?? "";
    const haystack = `${event.event_type} ${symbol} ${event.source ?? ""}`.toLowerCase();
    return { event, symbol: String(symbol), haystack, key: event.message_id ?? `#${++unnamed}` };
  }

  function create({ event, symbol }) {
    const made = row(
      ["time", clockMs(event.timestamp)], ["type", event.event_type], ["symbol", symbol],
      ["what", summary(event)], ["seq", event.seq === undefined ? "" : String(event.seq)],
    );
    mark(made.node, "tone", TONES[event.event_type]);
    mark(made.node, "symbol", symbol || null);
    made.node.title = `${event.event_type} from ${event.source ?? "?"} · ${event.message_id ?? ""}`;
    return made;
  }

  function shown() {
    const terms = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (let i = kept.length - 1; i >= 0 && found.length < SHOWN_MOST; i--) {
      if (terms.every((term) => kept[i].haystack.includes(term))) found.push(kept[i]);
    }
    return found;
  }

  function status() {
    const from = performance.now() - RATE_WINDOW_MS;
    while (arrivals.length && arrivals[0] < from) arrivals.shift();
    const rate = `${number((arrivals.length * 1000) / RATE_WINDOW_MS, 1)}/s`;
    text(note, trouble ?? (paused ? `${number(missed)} new` : rate));
    mark(note, "tone", trouble ? "warn" : null);
  }

  function flush() {
    if (document.hidden) return;
    status();
    if (!dirty || paused) return;
    dirty = false;
    const list = shown();
    keyed(body, list, ({ key }) => key, create, () => {});
    const reason = kept.length ? "No event matches the filter." : "Waiting for the first event.";
    emptyNote(root, list.length ? null : reason);
  }

  function pause() {
    paused = !paused;
    missed = 0;
    dirty = true;
    text(button, paused ? "Resume" : "Pause");
    button.setAttribute("aria-pressed", String(paused));
    flush();
  }

  button.addEventListener("click", pause);
  filter.addEventListener("input", () => {
    dirty = true;
    const frozen = paused;
    paused = false;
    flush();
    paused = frozen;
  });
  body.addEventListener("click", ({ target }) => {
    const symbol = target.closest("tr")?.dataset.symbol;
    if (symbol && !String(getSelection())) page.pickSymbol(symbol);
  });
  setInterval(flush, FLUSH_MS);

  return {
    /** Adds a new event. */
    push(event) {
      arrivals.push(performance.now());
      if (arrivals.length > 100_000) arrivals.shift();
      kept.push(wrap(event));
      if (kept.length > KEPT_MOST) kept.shift();
      missed += 1;
      dirty = true;
    },
    /** Adds stored events, newest first, before those already here. */
    seed(events) {
      const here = new Set(kept.map(({ key }) => key));
      const older = events.map(wrap).filter(({ key }) => !here.has(key));
      kept = [...older.reverse(), ...kept].slice(-KEPT_MOST);
      dirty = true;
    },
    /** Says why no events arrive, or null when they do. */
    trouble(words) {
      trouble = words;
      status();
    },
    filter,
  };
}
