// One line an instance: its state, load, smoothed latency and what its last probe found.

import { chip, el, emptyNote, glyph, hint, keyed, mark, row, setChip, text } from "../dom.js";
import { between, duration, number, tone, word } from "../format.js";
import { instances } from "../snapshot.js";

/** Problems first, then by address. */
const order = (a, b) =>
  Number(a.state === "healthy") - Number(b.state === "healthy") || a.url.localeCompare(b.url);

function probeWords({ last_probe: probe }, at) {
  if (!probe) return "not yet";
  const found = [probe.detail, probe.ms === null ? null : `${number(probe.ms, 1)} ms`].filter(Boolean).join(", ");
  return `${found || (probe.ok ? "passed" : "failed")} · ${duration(between(probe.at, at))}`;
}

/** Who holds it and why, where somebody does. */
const heldWords = ({ held }) => (held ? [`by ${held.by}`, held.reason].filter(Boolean).join(": ") : "");

/** @param {HTMLElement} root @param {{openBreaker: (name: string) => void}} page */
export function mount(root, page) {
  const body = root.querySelector("tbody");
  const note = root.querySelector(".note");

  function create() {
    const [state, sign, found] = [chip("idle", ""), glyph("idle"), document.createElement("span")];
    const made = row(["name"], ["of"], ["state", state], ["weight"], ["flight"], ["ewma"], ["probe", sign, found]);
    return { ...made, state, sign, found };
  }

  /** A service whose panel drains the instance; a worker has none. */
  function createOf({ name, breaker }) {
    if (!breaker) return { node: el("span", {}, name) };
    const about = { type: "button", class: "link", "data-upstream-of": name };
    return { node: el("button", { ...about, onclick: () => page.openBreaker(name) }, name) };
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update(snapshot) {
      const all = instances(snapshot).sort(order);
      keyed(body, all, ({ url }) => url, create, ({ cell, state, sign, found }, instance) => {
        text(cell.name, instance.url.replace(/^http:\/\//, ""));
        keyed(cell.of, instance.routes, ({ name }) => name, createOf, () => {});
        setChip(state, tone(instance.state), word(instance.state));
        hint(cell.state, heldWords(instance));
        text(cell.weight, number(instance.weight));
        text(cell.flight, number(instance.in_flight));
        text(cell.ewma, number(instance.ewma_ms, 1));
        mark(sign, "tone", instance.last_probe ? (instance.last_probe.ok ? "ok" : "bad") : "idle");
        const words = probeWords(instance, snapshot.at);
        text(found, words);
        hint(cell.probe, words);
      });
      const well = all.filter(({ state }) => state === "healthy").length;
      text(note, all.length ? `${well} of ${all.length} healthy` : "");
      emptyNote(root, all.length ? null : "No instance is configured.");
    },
  };
}
