// The instrument panel: candles and volume of a symbol seen on the tape, Bollinger bands and RSI from the
// calc worker, and a marker where a trading signal was published.

import { events as fetchEvents, indicators as fetchIndicators } from "../api.js";
import { barOf, indexAt, presentRun, signalOf } from "../bars.js";
import { Chart } from "../chart.js";
import { el, mark, text } from "../dom.js";
import { compact, date, duration, number, price } from "../format.js";

const BARS_MOST = 600;
const HISTORY = 400;
const SIGNALS_MOST = 200;
const SYMBOLS_MOST = 200;
const ASK_EVERY_MS = 1000;
const ASK_AGAIN_MS = 5000;
const WANTED = [{ name: "rsi", period: 14 }, { name: "bbands", period: 20 }];
/** Below this the longest indicator has no value yet. */
const BARS_LEAST = 20;
const COLOURS = [
  "grid", "axis", "text", "strong", "tag", "cross", "rising", "falling", "line", "band", "middle", "buy", "sell",
];

/** A price as the axis has room for it. */
const axisPrice = (value) => (value >= 1e6 ? compact(value) : value >= 1000 ? number(value) : price(value));

/**
 * @param {HTMLElement} root
 * @param {{colour: (name: string) => string, symbolPicked: (symbol: string) => void}} page
 */
export function mount(root, page) {
  const part = (role) => root.querySelector(`[data-role=${role}]`);
  const select = root.querySelector("select");
  const note = root.querySelector(".note");
  const chart = new Chart(root.querySelector("canvas"), (index) => {
    hovered = index;
    legend();
  });
  const symbols = new Set();
  let theme = {};
  let symbol = null;
  let wished = null;
  let bars = [];
  /** By time and words: a strategy may say the same of a bar more than once. */
  let signals = new Map();
  /** Live bars that came while the history was fetched; null when it is not. */
  let waiting = null;
  /** The last indicators with the times they were computed for. */
  let values = null;
  /** Counts choices: an answer to a question of an earlier one is dropped. */
  let era = 0;
  let asking = false;
  let askAfter = 0;
  let heardAt = null;
  let trouble = null;
  let hovered = null;

  // Which symbol.

  function learn(name) {
    if (symbols.has(name) || symbols.size >= SYMBOLS_MOST) return;
    if (!symbols.size) select.replaceChildren();
    symbols.add(name);
    const after = [...select.options].find((option) => option.value.localeCompare(name) > 0) ?? null;
    select.insertBefore(el("option", { value: name }, name), after);
    select.disabled = false;
    if (name === wished || (symbol === null && wished === null)) choose(name);
    else select.value = symbol ?? "";
  }

  async function choose(name) {
    const mine = ++era;
    [symbol, wished, select.value] = [name, null, name];
    [bars, signals, waiting, values, trouble, heardAt, askAfter] = [[], new Map(), [], null, null, null, 0];
    say(`Loading ${name}.`);
    draw();
    const stored = (event_type, limit) => fetchEvents({ event_type, symbol: name, limit });
    const answers = await Promise.all([stored("market_data_update", HISTORY), stored("trading_signal", SIGNALS_MOST)])
      .catch((error) => error);
    if (era !== mine) return;
    if (answers instanceof Error) trouble = `history: ${answers.message}`;
    else {
      presentRun(answers[0].map(barOf).filter(Boolean)).forEach(append);
      answers[1].map(signalOf).filter(Boolean).reverse().forEach(remember);
    }
    const late = waiting.filter(({ t }) => !bars.length || t >= bars.at(-1).t);
    waiting = null;
    late.forEach(append);
    draw();
    ask();
  }

  // Its data.

  /** Puts a bar at the end. One older than the end means the replay began again. */
  function append(bar) {
    const last = bars.at(-1);
    if (last && bar.t === last.t) bars[bars.length - 1] = bar;
    else if (last && bar.t < last.t) [bars, signals, values] = [[bar], new Map(), null];
    else bars.push(bar);
    if (bars.length > BARS_MOST) bars.shift();
  }

  function remember(signal) {
    signals.set(`${signal.t} ${signal.words}`, signal);
    if (signals.size > SIGNALS_MOST) signals.delete(signals.keys().next().value);
  }

  /** Asks the calc worker, one request at a time and no more than one a second. */
  async function ask() {
    if (asking || bars.length < BARS_LEAST || performance.now() < askAfter) return;
    asking = true;
    askAfter = performance.now() + ASK_EVERY_MS;
    const mine = era;
    const times = bars.map(({ t }) => t);
    try {
      const { rsi, bbands } = await fetchIndicators(bars.map(({ t, o, h, l, c, v }) => [t, o, h, l, c, v]), WANTED);
      if (era === mine) [values, trouble] = [{ times, rsi: rsi.value, ...bbands }, null];
    } catch (error) {
      if (era === mine) [trouble, askAfter] = [`indicators: ${error.message}`, performance.now() + ASK_AGAIN_MS];
    }
    asking = false;
    if (era === mine) draw();
    else ask();
  }

  /** An indicator laid over the present bars, which may have moved on since it was asked for. */
  function aligned(output) {
    const gone = values && bars.length ? values.times.indexOf(bars[0].t) : -1;
    return bars.map((_, i) => (gone < 0 ? NaN : output?.[i + gone] ?? NaN));
  }

  // What is seen of it.

  function say(words) {
    text(root.querySelector(".empty"), words ?? "");
    root.querySelector(".empty").hidden = !words;
  }

  /** The panes: price with its volume and bands, and under it the RSI. */
  function panes() {
    const pick = (name) => bars.map((bar) => bar[name]);
    const line = (output, colour) => ({ kind: "line", values: aligned(output), colour });
    const rising = bars.map(({ o, c }) => c >= o);
    const upper = [
      { kind: "histogram", values: pick("v"), rising, share: 0.16 },
      { kind: "band", upper: aligned(values?.upper), lower: aligned(values?.lower), colour: "band" },
      line(values?.middle, "middle"),
      { kind: "candles", open: pick("o"), high: pick("h"), low: pick("l"), close: pick("c") },
    ];
    const rsi = { series: [line(values?.rsi, "line")], levels: [30, 70], range: [0, 100] };
    return [
      { weight: 3, headroom: 38, series: upper, format: axisPrice },
      { weight: 1, headroom: 4, ...rsi, format: (value) => number(value) },
    ];
  }

  function draw() {
    const within = ({ t }) => bars.length && t >= bars[0].t && t <= bars.at(-1).t;
    const markers = [...signals.values()].filter(within).map(({ t, up }) => ({ index: indexAt(bars, t), up }));
    chart.show({ times: bars.map(({ t }) => t), panes: panes(), markers, theme });
    if (bars.length) say(null);
    else if (waiting === null && symbol !== null) say(`No bars of ${symbol} yet.`);
    heading();
    legend();
  }

  function heading() {
    const [before, last] = [bars.at(-2), bars.at(-1)];
    const change = last && before ? (last.c / before.c - 1) * 100 : null;
    text(part("last"), last ? price(last.c) : "");
    text(part("change"), change === null ? "" : `${change < 0 ? "−" : "+"}${number(Math.abs(change), 2)} %`);
    mark(part("change"), "way", change === null ? null : change < 0 ? "down" : "up");
    const words = last ? `${symbol}, ${bars.length} bars to ${date(last.t)}, last close ${price(last.c)}` : "empty";
    root.querySelector("canvas").setAttribute("aria-label", `Price chart: ${words}`);
  }

  /** What the bar under the crosshair says; without one the newest bar, with the newest indicators. */
  function legend() {
    const i = hovered ?? bars.length - 1;
    const bar = bars[i];
    text(part("legend"), bar ? `${barWords(bar)}\n${moreWords(bar, i)}` : "");
    const rsi = bar ? indicatorAt(values?.rsi, i) : NaN;
    const none = bars.length < BARS_LEAST ? `from ${BARS_LEAST} bars on` : "–";
    text(part("lower"), bar ? `RSI 14  ${Number.isFinite(rsi) ? number(rsi, 1) : none}` : "");
  }

  const indicatorAt = (output, i) =>
    hovered === null ? aligned(output).findLast(Number.isFinite) : aligned(output)[i];

  const barWords = ({ t, o, h, l, c }) =>
    [date(t).slice(0, 10), `O ${price(o)}`, `H ${price(h)}`, `L ${price(l)}`, `C ${price(c)}`].join("  ");

  function moreWords({ t, v }, i) {
    const [upper, lower] = [indicatorAt(values?.upper, i), indicatorAt(values?.lower, i)];
    const next = bars[i + 1]?.t ?? t + 1;
    const here = [...signals.values()].filter((signal) => signal.t >= t && signal.t < next).map(({ words }) => words);
    const band = Number.isFinite(upper) ? [`BB 20  ${price(lower)} – ${price(upper)}`] : [];
    return [`Vol ${compact(v)}`, ...band, ...here].join("  ");
  }

  function tick() {
    const age = heardAt === null ? null : (performance.now() - heardAt) / 1000;
    text(note, trouble ?? (age === null ? "" : `bar ${duration(age)} ago`));
    mark(note, "tone", trouble ? "warn" : null);
  }

  select.addEventListener("change", () => page.symbolPicked(select.value));
  setInterval(tick, 500);

  return {
    /** Takes an event from the tape. */
    push(event) {
      const name = event.data?.symbol;
      if (typeof name !== "string") return;
      const [bar, signal] = [barOf(event), signalOf(event)];
      if (bar) learn(name);
      if (name !== symbol) return;
      if (signal) remember(signal);
      if (!bar) return;
      heardAt = performance.now();
      if (waiting) {
        waiting = [...waiting, bar].slice(-HISTORY);
        return;
      }
      append(bar);
      if (document.hidden) return;
      draw();
      ask();
    },
    /** Learns the symbols of stored events. */
    seed(events) {
      for (const event of events) if (barOf(event) && typeof event.data.symbol === "string") learn(event.data.symbol);
    },
    /** Shows a symbol, at once or as soon as it is seen on the tape. */
    pick(name) {
      if (name === symbol) return;
      if (symbols.has(name)) choose(name);
      else wished = name;
    },
    /** Fetches the shown symbol anew, as after a new token. */
    reload() {
      if (symbol !== null) choose(symbol);
    },
    /** Takes the colours again, after the scheme changed. */
    repaint() {
      const font = `11px ${getComputedStyle(document.body).fontFamily}`;
      theme = { ...Object.fromEntries(COLOURS.map((name) => [name, page.colour(name)])), font };
      draw();
    },
  };
}
