// Charts on a canvas: candles, lines, bands, histograms, markers and levels in stacked panes that share
// one axis of bars; crosshair, pan, zoom, keyboard; and a sparkline for tables. It knows arrays and pixels,
// nothing of markets or of the page. A series is an array as long as `times` with NaN (or null) where there
// is no value. Everything is drawn again on each change: a few hundred bars cost about a millisecond.

const AXIS_WIDTH = 54;
const AXIS_HEIGHT = 20;
const PANE_GAP = 6;
const BARS_MIN = 12;
const DAY_MS = 86_400_000;

/** Sizes a canvas to its box and the screen's pixels; answers its context in CSS pixels, cleared. */
function fit(canvas, [width, height]) {
  const ratio = window.devicePixelRatio || 1;
  for (const [side, pixels] of [["width", width], ["height", height]]) {
    if (canvas[side] !== Math.round(pixels * ratio)) canvas[side] = Math.round(pixels * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Half a pixel in, so that a one-pixel line is one pixel. */
const crisp = (value) => Math.round(value) + 0.5;
const known = (value) => value !== null && Number.isFinite(value);

/** Fills the path with a thin coat of a colour. */
function wash(context, colour, alpha) {
  context.globalAlpha = alpha;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

/** A canvas's box, [width, height] in CSS pixels. Reading it costs a layout: once for a column of them. */
export const box = (canvas) => [canvas.clientWidth, canvas.clientHeight];

/** A small line with a quiet area and a dot at its end; draws nothing for fewer than two values. */
export function sparkline(canvas, [width, height], values, colour) {
  const context = fit(canvas, [width, height]);
  if (values.length < 2) return;
  const top = Math.max(...values, 1e-9);
  const last = values.length - 1;
  const step = (width - 5) / last;
  const y = (value) => height - 1.5 - (Math.max(value, 0) / top) * (height - 4);
  context.beginPath();
  values.forEach((value, i) => context.lineTo(1 + i * step, y(value)));
  context.strokeStyle = colour;
  context.lineWidth = 1.2;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(1 + last * step, height);
  context.lineTo(1, height);
  wash(context, colour, 0.14);
  context.fillRect(last * step - 0.5, y(values.at(-1)) - 1.5, 3, 3);
}

/** Round numbers that divide [low, high] into about `wanted` parts. */
export function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(wanted, 1);
  if (!(raw > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((unit) => unit * power >= raw) * power;
  const first = Math.ceil(low / step);
  const many = Math.min(Math.floor(high / step) - first + 1, 50);
  return Array.from({ length: many }, (_, i) => (first + i) * step);
}

export class Chart {
  /**
   * @param {HTMLCanvasElement} canvas focusable; takes the pointer and the arrow keys
   * @param {(index: ?number) => void} onHover the bar under the crosshair, null when it leaves
   */
  constructor(canvas, onHover) {
    Object.assign(this, { canvas, onHover, theme: {}, times: [], panes: [], markers: [] });
    Object.assign(this, { count: 120, end: 0, cross: null, pointers: new Map(), frame: 0 });
    new ResizeObserver(() => this.redraw()).observe(canvas);
    this.listen();
  }

  /**
   * Takes new data; stays at the newest bar when it was there.
   * @param {{times: number[], panes: object[], markers: {index: number, up: boolean}[], theme: object}} model
   * The theme maps colour names to CSS colours and has `font`. A pane is {weight, headroom, series, levels?,
   * range?, format}; a series is {kind: "candles", open, high, low, close}, {kind: "line", values, colour},
   * {kind: "band", upper, lower, colour} or {kind: "histogram", values, rising, share}.
   */
  show({ times, panes, markers, theme }) {
    const following = this.end >= this.times.length || times.length < this.times.length;
    Object.assign(this, { times, panes, markers, theme });
    if (following) this.end = Infinity;
    if (this.cross && this.cross.index >= times.length) this.cross = null;
    this.clamp();
  }

  /** Keeps the view on the data, with a little room right of the newest bar. */
  clamp() {
    const most = Math.max(this.times.length + Math.max(1, this.count * 0.02), BARS_MIN);
    this.count = Math.min(Math.max(this.count, BARS_MIN), Math.max(most, 120));
    this.end = Math.min(Math.max(this.end, Math.min(this.count, most)), most);
    this.redraw();
  }

  /** Draws before the next picture, once however often it is asked. */
  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  // Geometry: bar i is centred at x(i) and reaches half() to either side.

  step() {
    return this.plotWidth / this.count;
  }
  half() {
    return Math.max(Math.floor(this.step() * 0.34), 0.5);
  }
  x(index) {
    return this.plotWidth - (this.end - index - 0.5) * this.step();
  }
  indexAt(x) {
    return this.end - (this.plotWidth - x) / this.step();
  }
  bar(index) {
    return Math.min(Math.max(index, 0), this.times.length - 1);
  }
  /** Calls `act` with each bar in view, and `beyond` bars outside it on both sides. */
  each(act, beyond = 0) {
    const first = Math.max(0, Math.floor(this.end - this.count) - beyond);
    const last = Math.min(this.times.length, Math.ceil(this.end) + beyond);
    for (let i = first; i < last; i++) act(i);
  }

  draw() {
    const [width, height] = box(this.canvas);
    Object.assign(this, { plotWidth: width - AXIS_WIDTH, plotHeight: height - AXIS_HEIGHT });
    const context = (this.context = fit(this.canvas, [width, height]));
    if (this.plotWidth < 20 || this.plotHeight < 20 || !this.times.length) return;
    Object.assign(context, { font: this.theme.font, textBaseline: "middle" });
    this.drawTimes();
    const total = this.panes.reduce((sum, pane) => sum + pane.weight, 0);
    const room = this.plotHeight - PANE_GAP * (this.panes.length - 1);
    let top = 0;
    for (const pane of this.panes) {
      pane.top = top;
      pane.bottom = top + (room * pane.weight) / total;
      this.drawPane(pane);
      top = pane.bottom + PANE_GAP;
    }
    if (this.cross) this.drawCross();
  }

  /** The span of values a pane must show, from what is in view. */
  span(pane) {
    if (pane.range) return pane.range;
    let [low, high] = [Infinity, -Infinity];
    const shown = pane.series.filter(({ kind }) => kind !== "histogram");
    for (const values of shown.flatMap((s) => [s.values, s.high, s.low, s.upper, s.lower]).filter(Boolean)) {
      this.each((i) => {
        if (!known(values[i])) return;
        low = Math.min(low, values[i]);
        high = Math.max(high, values[i]);
      });
    }
    if (low > high) return [0, 1];
    const pad = (high - low) * 0.03 || Math.abs(high) * 0.01 || 1;
    const under = shown.length < pane.series.length ? 5 : 1;
    return [low - pad * under, high + pad];
  }

  drawPane(pane) {
    const { context, theme, plotWidth } = this;
    const [low, high] = this.span(pane);
    const ceiling = pane.top + pane.headroom;
    pane.y = (value) => pane.bottom - ((value - low) / (high - low)) * (pane.bottom - ceiling);
    pane.at = (y) => low + ((pane.bottom - y) / (pane.bottom - ceiling)) * (high - low);
    const lead = pane.series.find(({ kind }) => kind === "candles") ?? pane.series.at(-1);
    const last = (lead.close ?? lead.values).findLast(known);
    const tagged = last >= low && last <= high ? pane.y(last) : -99;
    context.textAlign = "left";
    for (const value of pane.levels ?? ticks(low, high, (pane.bottom - ceiling) / 44)) {
      const y = pane.y(value);
      this.segment(0, crisp(y), plotWidth, crisp(y), theme.grid);
      context.fillStyle = theme.text;
      const free = y > pane.top + 6 && y < pane.bottom - 6 && Math.abs(y - tagged) > 14;
      if (free) context.fillText(pane.format(value), plotWidth + 6, y);
    }
    this.segment(0, crisp(pane.bottom), plotWidth, crisp(pane.bottom), theme.axis);
    context.save();
    context.beginPath();
    context.rect(0, pane.top, plotWidth, pane.bottom - pane.top);
    context.clip();
    for (const series of pane.series) this[series.kind](pane, series);
    if (lead.kind === "candles") this.drawMarkers(pane, lead);
    context.restore();
    if (tagged > 0) this.tag(plotWidth + 1, tagged, pane.format(last), theme.tag, AXIS_WIDTH - 1);
  }

  segment(x1, y1, x2, y2, colour) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = 1;
    this.context.beginPath();
    this.context.moveTo(x1, y1);
    this.context.lineTo(x2, y2);
    this.context.stroke();
  }

  /** Rising bars are hollow, falling ones filled: they differ without colour too. */
  candles(pane, { open, high, low, close }) {
    const { context, theme } = this;
    const half = this.half();
    context.lineWidth = 1;
    this.each((i) => {
      const rising = close[i] >= open[i];
      const x = crisp(this.x(i));
      const [top, bottom] = [open[i], close[i]].map(pane.y).sort((a, b) => a - b);
      context.strokeStyle = context.fillStyle = rising ? theme.rising : theme.falling;
      context.beginPath();
      context.moveTo(x, pane.y(high[i]));
      context.lineTo(x, rising ? top : bottom);
      if (rising) context.moveTo(x, bottom);
      context.lineTo(x, pane.y(low[i]));
      context.stroke();
      const tall = Math.max(Math.round(bottom - top), 1);
      if (rising && half >= 1.5) context.strokeRect(x - half, crisp(top), half * 2, tall);
      else context.fillRect(x - half - 0.5, Math.round(top), half * 2 + 1, tall);
    });
  }

  line(pane, { values, colour }) {
    const { context } = this;
    let pen = "moveTo";
    context.beginPath();
    this.each((i) => {
      if (known(values[i])) context[pen](this.x(i), pane.y(values[i]));
      pen = known(values[i]) ? "lineTo" : "moveTo";
    }, 1);
    context.strokeStyle = this.theme[colour];
    context.lineWidth = 1.3;
    context.lineJoin = "round";
    context.stroke();
  }

  band(pane, { upper, lower, colour }) {
    const { context } = this;
    const shown = [];
    context.beginPath();
    this.each((i) => known(upper[i]) && known(lower[i]) && shown.push(i), 1);
    for (const i of shown) context.lineTo(this.x(i), pane.y(upper[i]));
    for (const i of shown.reverse()) context.lineTo(this.x(i), pane.y(lower[i]));
    wash(context, this.theme[colour], 0.08);
    for (const values of [upper, lower]) this.line(pane, { values, colour });
  }

  /** Bars from the pane's bottom with their own scale, over `share` of its height. */
  histogram(pane, { values, rising, share }) {
    const { context, theme } = this;
    const half = this.half();
    let most = 0;
    this.each((i) => (most = Math.max(most, values[i] || 0)));
    const scale = ((pane.bottom - pane.top) * share) / (most || 1);
    context.globalAlpha = 0.32;
    this.each((i) => {
      const tall = Math.max(values[i] || 0, 0) * scale;
      context.fillStyle = rising[i] ? theme.rising : theme.falling;
      context.fillRect(Math.round(this.x(i)) - half, pane.bottom - tall, half * 2 + 1, tall);
    });
    context.globalAlpha = 1;
  }

  /** Up: a triangle under the bar. Down: one above it, pointing down. */
  drawMarkers(pane, { high, low }) {
    const { context, theme } = this;
    for (const { index, up } of this.markers) {
      const x = this.x(index);
      const tip = up ? pane.y(low[index]) + 5 : pane.y(high[index]) - 5;
      const base = up ? tip + 8 : tip - 8;
      context.beginPath();
      for (const [px, py] of [[x, tip], [x - 5, base], [x + 5, base]]) context.lineTo(px, py);
      context.fillStyle = up ? theme.buy : theme.sell;
      context.fill();
    }
  }

  /** Words on a plate; y is its middle. */
  tag(x, y, words, back, width) {
    const { context } = this;
    context.fillStyle = back;
    context.fillRect(x, y - 8, width, 16);
    context.fillStyle = this.theme.strong;
    context.textAlign = "left";
    context.fillText(words, x + 5, y);
  }

  /** On the axis the month, or inside a day the minute; under the crosshair the whole. */
  timeLabel(index, whole) {
    const iso = new Date(this.times[index]).toISOString();
    const daily = this.times.length < 2 || this.times.at(-1) - this.times.at(-2) >= DAY_MS;
    if (daily) return iso.slice(0, whole ? 10 : 7);
    return whole ? iso.slice(5, 16).replace("T", " ") : iso.slice(11, 16);
  }

  /** A label where the month or the minute turns and there is room. */
  drawTimes() {
    const { context, theme } = this;
    let [free, previous] = [24, null];
    context.textAlign = "center";
    this.each((i) => {
      const [label, x] = [this.timeLabel(i, false), this.x(i)];
      const turned = previous !== null && label !== previous;
      previous = label;
      if (!turned || x < free || x > this.plotWidth - 20) return;
      free = x + 74;
      this.segment(crisp(x), 0, crisp(x), this.plotHeight, theme.grid);
      context.fillStyle = theme.text;
      context.fillText(label, x, this.plotHeight + AXIS_HEIGHT / 2 + 1);
    });
  }

  drawCross() {
    const { context, theme, cross } = this;
    const x = crisp(this.x(cross.index));
    const pane = this.panes.find(({ top, bottom }) => cross.y >= top && cross.y <= bottom);
    this.segment(x, 0, x, this.plotHeight, theme.cross);
    if (pane) this.segment(0, crisp(cross.y), this.plotWidth, crisp(cross.y), theme.cross);
    if (pane) this.tag(this.plotWidth + 1, cross.y, pane.format(pane.at(cross.y)), theme.cross, AXIS_WIDTH - 1);
    const label = this.timeLabel(cross.index, true);
    const width = context.measureText(label).width + 10;
    const left = Math.min(Math.max(x - width / 2, 0), this.plotWidth - width);
    this.tag(left, this.plotHeight + 10, label, theme.cross, width);
  }

  // Input: drag pans, wheel and pinch zoom, arrows move the crosshair.

  hover(cross) {
    this.cross = this.times.length ? cross : null;
    this.onHover(this.cross ? this.cross.index : null);
    this.redraw();
  }

  pan(bars) {
    this.end += bars;
    this.clamp();
  }

  /** Shows `factor` times the bars, keeping the one at x in its place. */
  zoom(factor, x) {
    const anchor = this.indexAt(x);
    this.count *= factor;
    this.clamp();
    this.end += anchor - this.indexAt(x);
    this.clamp();
  }

  listen() {
    const on = (name, act) => this.canvas.addEventListener(name, act, { passive: false });
    const drop = (event) => this.pointers.delete(event.pointerId);
    on("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event.offsetX);
    });
    on("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, drop);
    for (const name of ["pointerleave", "blur"]) on(name, () => this.hover(null));
    on("wheel", (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.pan(event.deltaX / this.step());
      else this.zoom(Math.exp(event.deltaY * 0.0015), event.offsetX);
    });
    on("keydown", (event) => this.key(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (before !== undefined) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other === undefined) this.pan((before - event.offsetX) / this.step());
      else this.zoom(Math.abs(before - other) / Math.max(Math.abs(event.offsetX - other), 1), other);
      this.pointers.set(event.pointerId, event.offsetX);
    }
    if (event.offsetX > this.plotWidth) this.hover(null);
    else this.hover({ index: this.bar(Math.floor(this.indexAt(event.offsetX))), y: event.offsetY });
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const zooms = { "+": 0.8, "=": 0.8, "-": 1.25 };
    if (event.key in zooms) this.zoom(zooms[event.key], this.plotWidth);
    else if (event.key in moves && this.times.length) {
      const index = this.bar((this.cross?.index ?? this.times.length - 1) + moves[event.key]);
      if (index < this.end - this.count || index >= this.end) this.end = index + 2;
      this.clamp();
      this.hover({ index, y: this.cross?.y ?? -1 });
    } else return;
    event.preventDefault();
  }
}
