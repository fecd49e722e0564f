// One line a gate: what its instances get at once, and each lane's part: running, waiting, turned away.

import { emptyNote, hint, keyed, mark, row, text } from "../dom.js";
import { compact, number } from "../format.js";

const LANES = ["cancel", "order", "query", "analytics"];

/** "3", "3 +2 wait", "3 · 31 shed" */
function laneWords({ running, waiting, shed }) {
  const parts = [number(running), waiting > 0 && `+${number(waiting)} wait`, shed > 0 && `· ${compact(shed)} shed`];
  return parts.filter(Boolean).join(" ");
}

/** @param {HTMLElement} root */
export function mount(root) {
  const body = root.querySelector("tbody");
  const note = root.querySelector(".note");
  const create = () => row(["name"], ["limit"], ...LANES.map((lane) => [`lane ${lane}`]));

  function update({ cell }, gate) {
    const names = gate.services.join(", ");
    text(cell.name, names);
    hint(cell.name, names);
    text(cell.limit, `${number(gate.running)} / ${number(gate.limit)}${gate.adaptive ? " ~" : ""}`);
    hint(cell.limit, gate.adaptive ? "the limit follows the latency" : "the limit is fixed");
    for (const lane of LANES) {
      const part = gate.lanes[lane];
      const node = cell[`lane ${lane}`];
      text(node, laneWords(part));
      mark(node, "tone", part.waiting > 0 ? "warn" : null);
      hint(node, `${lane}: ${number(part.running)} run, ${number(part.waiting)} wait, ${number(part.shed)} turned away`);
    }
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ gates }) {
      keyed(body, gates, ({ services }) => services.join(" "), create, update);
      const waiting = gates.reduce((sum, gate) => sum + gate.waiting, 0);
      text(note, waiting > 0 ? `${number(waiting)} wait` : "nobody waits");
      mark(note, "tone", waiting > 0 ? "warn" : null);
      emptyNote(root, gates.length ? null : "No upstream has a limit.");
    },
  };
}
