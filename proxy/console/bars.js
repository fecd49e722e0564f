// Bars and signals as the chart wants them, out of events. Pure.

import { number } from "./format.js";

const moment = (value) => (typeof value === "number" ? value : Date.parse(value));

/** The bar {t, o, h, l, c, v} of a market_data_update, t in ms; null when it is none. */
export function barOf({ event_type: type, data }) {
  if (type !== "market_data_update") return null;
  const [o, h, l, c, v] = [data?.open, data?.high, data?.low, data?.close, data?.volume].map(Number);
  const bar = { t: moment(data?.timestamp), o, h, l, c, v };
  return Object.values(bar).every(Number.isFinite) ? bar : null;
}

/** The signal {t, up, words} of a trading_signal; null when it is none, or neither buys nor sells. */
export function signalOf({ event_type: type, data }) {
  const action = String(data?.action ?? data?.signal ?? "").toUpperCase();
  const t = moment(data?.timestamp);
  if (type !== "trading_signal" || !["BUY", "SELL"].includes(action) || !Number.isFinite(t)) return null;
  const parts = [action, data.confidence === undefined ? null : number(Number(data.confidence), 2), data.strategy];
  return { t, up: action === "BUY", words: parts.filter(Boolean).join(" ") };
}

/** Of items newest first, those of the present replay, oldest first: going back, time must never rise. */
export function presentRun(newestFirst) {
  const began = newestFirst.findIndex(({ t }, i) => i > 0 && t > newestFirst[i - 1].t);
  return newestFirst.slice(0, began < 0 ? undefined : began).reverse();
}

/** The place of the last bar at or before t; bars are in order and not empty. */
export function indexAt(bars, t) {
  let [low, high] = [0, bars.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (bars[middle].t <= t) low = middle;
    else high = middle - 1;
  }
  return low;
}
