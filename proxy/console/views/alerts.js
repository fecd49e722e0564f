// What needs a person, worst first, and under it the state of the configuration.

import { chip, el, emptyNote, keyed, mark, setChip, text } from "../dom.js";
import { between, clock, duration, tone } from "../format.js";

const RANK = { critical: 0, warning: 1, info: 2 };

/** @param {HTMLElement} root */
export function mount(root) {
  const list = root.querySelector("ul");
  const note = root.querySelector(".note");
  const footer = root.querySelector("footer");

  function create() {
    const [level, service] = [chip("idle", ""), el("b")];
    const [message, since] = [el("span", { class: "message" }), el("span", { class: "quiet since" })];
    return { node: el("li", {}, level, el("p", {}, service, " ", message), since), level, service, message, since };
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ at, alerts, generation }) {
      const sorted = [...alerts].sort((a, b) => RANK[a.level] - RANK[b.level] || b.since.localeCompare(a.since));
      const key = (alert) => `${alert.level} ${alert.service} ${alert.message} ${alert.since}`;
      keyed(list, sorted, key, create, (view, alert) => {
        setChip(view.level, tone(alert.level), alert.level);
        text(view.service, alert.service);
        text(view.message, alert.message);
        text(view.since, duration(between(alert.since, at)));
      });
      text(note, alerts.length ? String(alerts.length) : "");
      emptyNote(root, alerts.length ? null : "Nothing needs attention.");
      const { number, hash, loaded_at: loadedAt, last_error: refused } = generation;
      const loaded = `Configuration ${number} · ${hash} · loaded ${clock(loadedAt)} UTC`;
      text(footer, refused ? `${loaded} · last reload refused: ${refused}` : loaded);
      mark(footer, "tone", refused ? "warn" : null);
    },
  };
}
