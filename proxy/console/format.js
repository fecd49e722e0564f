// How figures, times and states are written. A null or non-finite figure is a dash.

const DASH = "–";
const fixed = [0, 1, 2].map(
  (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const absent = (value) => value === null || value === undefined || !Number.isFinite(value);

/** 1,284.3 with that many decimals (0, 1 or 2). */
export const number = (value, digits = 0) => (absent(value) ? DASH : fixed[digits].format(value));

/** 12.3M */
export const compact = (value) => (absent(value) ? DASH : short.format(value));

/** A price: two decimals from 1 up, five significant digits below. */
export const price = (value) =>
  absent(value) ? DASH : Math.abs(value) >= 1 ? number(value, 2) : value.toPrecision(5);

/** "0.4 s", "12 s", "3 m 12 s", "2 h 15 m", "94 d" */
export function duration(seconds) {
  if (absent(seconds)) return DASH;
  const s = Math.max(seconds, 0);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${Math.floor(s % 60)} s`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d`;
}

/** "15 h", "1.9 d", "89 d"; "expired". */
export function lifetime(days) {
  if (absent(days)) return DASH;
  if (days <= 0) return "expired";
  if (days < 1) return days * 24 < 1 ? `${Math.floor(days * 1440)} m` : `${Math.floor(days * 24)} h`;
  return days < 10 ? `${days.toFixed(1)} d` : `${number(Math.floor(days))} d`;
}

/** "10:00:04", UTC, of an RFC 3339 text or milliseconds. */
export const clock = (at) => instant(at)?.slice(11, 19) ?? DASH;

/** "10:00:04.250", UTC. */
export const clockMs = (at) => instant(at)?.slice(11, 23) ?? DASH;

/** "2026-11-21 10:00", UTC. */
export const date = (at) => instant(at)?.slice(0, 16).replace("T", " ") ?? DASH;

/** Seconds from one time to another. */
export const between = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;

function instant(at) {
  const ms = typeof at === "number" ? at : Date.parse(at);
  return Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? new Date(ms).toISOString() : null;
}

const TONES = {
  healthy: "ok", closed: "ok",
  degraded: "warn", half_open: "warn", warning: "warn", draining: "warn",
  unhealthy: "bad", ejected: "bad", open: "bad", critical: "bad",
};

/** The tone of a state word: ok, warn, bad, or idle for all others. */
export const tone = (state) => TONES[state] ?? "idle";

/** A state word as it is read. */
export const word = (state) => state.replaceAll("_", " ");

/** "Healthy" */
export const title = (state) => word(state).replace(/^./, (first) => first.toUpperCase());

/** A leaf lives a day and is renewed with 8 h left: later than that something is wrong. */
export const certificateTone = (days) => (days <= 0.04 ? "bad" : days < 0.3 ? "warn" : "ok");
