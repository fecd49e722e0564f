// The figures read first: one tile each, a label, a value with its unit, a quiet note.

import { el, glyph, hint, mark, text } from "../dom.js";
import { certificateTone, clock, compact, duration, lifetime, number, title, tone } from "../format.js";
import { oldestCertificate, openBreakers } from "../snapshot.js";

const FEED_LATE_S = 5;
const ERRORS_WARN_PCT = 1;
const ERRORS_BAD_PCT = 5;

const errorTone = (pct) => (pct >= ERRORS_BAD_PCT ? "bad" : pct >= ERRORS_WARN_PCT ? "warn" : null);
const ms = (value, note = "") => ({ value: number(value, 1), unit: "ms", note });

function certificate(snapshot) {
  const first = oldestCertificate(snapshot);
  if (!first) return { value: "–", unit: "", note: "none known" };
  const [value, unit = ""] = lifetime(first.days_left).split(" ");
  const warning = certificateTone(first.days_left);
  return { value, unit, note: first.name, tone: warning === "ok" ? null : warning };
}

function breakers(snapshot) {
  const open = openBreakers(snapshot);
  const all = snapshot.routes.filter((route) => route.breaker).length;
  const note = open.map((route) => route.name).join(", ") || (all ? "all closed" : "none");
  return { value: number(open.length), unit: `of ${all}`, note, tone: open.length ? "bad" : null };
}

function requests({ totals: { rps, in_flight } }) {
  return { value: number(rps, rps < 100 ? 1 : 0), unit: "/s", note: `${number(in_flight)} in flight` };
}

function errors({ totals: { error_pct } }) {
  return { value: number(error_pct, 2), unit: "%", note: "answers ≥ 500", tone: errorTone(error_pct) };
}

function store({ store: { kind, stream_length, last_seq, events_per_s: rate, oldest_age_s: oldest, dead_letters: dead } }) {
  const letters = dead > 0 ? `${compact(dead)} dead` : `oldest ${duration(oldest)}`;
  return {
    value: compact(stream_length),
    unit: kind ?? "",
    note: `${number(rate, rate < 100 ? 1 : 0)}/s · ${letters}`,
    tone: dead > 0 ? "warn" : null,
    hint: `seq ${number(last_seq)}, oldest event ${duration(oldest)}, dead letters ${number(dead)}`,
  };
}

function feed({ feed: { age_s, epoch } }) {
  const [value, unit = ""] = duration(age_s).split(" ");
  const late = age_s === null || age_s > FEED_LATE_S;
  return { value, unit, note: epoch === null ? "no feed yet" : `epoch ${epoch}`, tone: late ? "warn" : null };
}

function configuration({ generation }) {
  const refused = generation.last_error;
  return {
    value: number(generation.number),
    unit: refused ? "reload refused" : generation.hash.slice(0, 7),
    note: `loaded ${clock(generation.loaded_at)}`,
    tone: refused ? "warn" : null,
    hint: refused ?? `configuration ${generation.hash}`,
  };
}

/** Each tile: its label and what it shows of a snapshot. */
const TILES = [
  ["State", (s) => ({ value: title(s.state), note: `up ${duration(s.uptime_s)}`, tone: tone(s.state) })],
  ["Requests", requests],
  ["Errors", errors],
  ["p50", (s) => ms(s.totals.p50_ms, "last 10 s")],
  ["p99", (s) => ms(s.totals.p99_ms, "last 10 s")],
  ["p99.9", (s) => ms(s.totals.p999_ms, "last 10 s")],
  ["Open breakers", breakers],
  ["Limited", (s) => ({ value: number(s.totals.limited_per_s, 1), unit: "/s", note: "answers 429" })],
  ["Key feed", feed],
  ["First expiry", certificate],
  ["Event store", store],
  ["Configuration", configuration],
];

/** @param {HTMLElement} root the definition list */
export function mount(root) {
  const tiles = TILES.map(([label, show]) => {
    const sign = glyph("idle");
    const [value, unit, note] = [el("b", {}, "–"), el("span", { class: "unit" }), el("span", { class: "sub" })];
    const figure = el("span", { class: "value" }, sign, value, unit);
    const node = el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, figure, note));
    root.append(node);
    return { node, sign, value, unit, note, show };
  });
  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update(snapshot) {
      for (const tile of tiles) {
        const shown = tile.show(snapshot);
        text(tile.value, shown.value);
        text(tile.unit, shown.unit ?? "");
        text(tile.note, shown.note);
        mark(tile.node, "tone", shown.tone);
        mark(tile.sign, "tone", shown.tone ?? "idle");
        tile.sign.hidden = !shown.tone;
        hint(tile.node, shown.hint ?? "");
      }
    },
  };
}
