// One line a route: traffic of the last minute, latencies, its upstreams as shapes, its breaker.

import { box, sparkline } from "../chart.js";
import { chip, el, emptyNote, glyph, hint, keyed, mark, row, setChip, text } from "../dom.js";
import { number, tone, word } from "../format.js";

const breakerWord = (breaker) => (breaker.forced ? `forced ${breaker.forced}` : word(breaker.state));

/** @param {HTMLElement} root @param {{openBreaker: (name: string) => void, colour: (name: string) => string}} page */
export function mount(root, page) {
  const body = root.querySelector("tbody");
  const note = root.querySelector(".note");
  /** Box and colour of the sparklines, read once a snapshot: reading either between writes costs a layout. */
  let brush = { size: [0, 0], colour: "" };
  /** Canvases in view: drawing hundreds that are scrolled away costs more than all the rest. */
  const inView = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
  });

  function create(route) {
    const canvas = el("canvas", { "aria-hidden": "true" });
    const onclick = () => page.openBreaker(route.name);
    const about = { type: "button", class: "breaker-open", "data-breaker": route.name, onclick };
    const breaker = el("button", about, chip("idle", ""));
    const [dots, counted] = [el("span", { class: "glyphs" }), el("span", { class: "quiet" })];
    const [name, prefix, lane] = [el("b"), el("span", { class: "quiet prefix" }), el("span", { class: "tag" })];
    const made = row(
      ["name", name, " ", prefix, " ", lane], ["spark", canvas],
      ["rps"], ["error"], ["p50"], ["p99"], ["flight"], ["limited"],
      ["dots", dots, counted], ["breaker", breaker],
    );
    watch.observe(canvas);
    return { ...made, canvas, breaker, dots, counted, name, prefix, lane, drawn: "" };
  }

  function update(view, route) {
    const { cell } = view;
    text(view.name, route.name);
    text(view.prefix, route.prefix);
    text(view.lane, [route.lane, route.auth_required ? null : "open"].filter(Boolean).join(" · "));
    text(cell.rps, number(route.rps, 1));
    text(cell.error, number(route.error_pct, 2));
    mark(cell.error, "tone", route.error_pct >= 5 ? "bad" : route.error_pct >= 1 ? "warn" : null);
    text(cell.p50, number(route.p50_ms, 1));
    text(cell.p99, number(route.p99_ms, 1));
    updateFlight(cell.flight, route);
    text(cell.limited, number(route.limited_per_s, 1));
    updateDots(view, route);
    updateBreaker(view, route);
    const drawing = `${route.spark} ${brush.size} ${brush.colour}`;
    if (drawing === view.drawn || !inView.has(view.canvas)) return;
    view.drawn = drawing;
    sparkline(view.canvas, brush.size, route.spark, brush.colour);
  }

  function updateFlight(cell, { in_flight, concurrency }) {
    const waiting = concurrency?.waiting ?? 0;
    text(cell, waiting > 0 ? `${number(in_flight)} · ${number(waiting)} wait` : number(in_flight));
    mark(cell, "tone", waiting > 0 ? "warn" : null);
    if (!concurrency) return;
    const kind = concurrency.adaptive ? "adaptive limit" : "limit";
    hint(cell, `${kind} ${number(concurrency.limit)}, ${number(concurrency.shed)} turned away`);
  }

  function updateDots(view, { instances }) {
    const well = instances.filter(({ state }) => state === "healthy").length;
    keyed(view.dots, instances.slice(0, 8), ({ url }) => url, () => ({ node: glyph("idle") }), ({ node }, instance) => {
      mark(node, "tone", tone(instance.state));
      hint(node, `${instance.url} ${word(instance.state)}`);
    });
    text(view.counted, instances.length ? `${well}/${instances.length}` : "none");
  }

  function updateBreaker(view, { name, breaker }) {
    view.breaker.hidden = !breaker;
    if (!breaker) return;
    setChip(view.breaker.firstChild, tone(breaker.state), breakerWord(breaker));
    const label = `Breaker of ${name}: ${breakerWord(breaker)}. Open its panel`;
    if (view.breaker.getAttribute("aria-label") !== label) view.breaker.setAttribute("aria-label", label);
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ routes, routes_total }) {
      // By name: lines that change places cannot be read.
      const first = body.querySelector("canvas");
      if (first) brush = { size: box(first), colour: page.colour("line") };
      const sorted = [...routes].sort((a, b) => a.name.localeCompare(b.name));
      keyed(body, sorted, ({ name }) => name, create, update);
      const all = number(routes_total);
      text(note, routes.length < routes_total ? `${routes.length} busiest of ${all}` : all);
      emptyNote(root, routes.length ? null : "No route is configured. Add one under conf/services.d and reload.");
    },
  };
}
