// The certificates the edge knows, the first to expire on top.

import { chip, emptyNote, hint, keyed, row, setChip, text } from "../dom.js";
import { certificateTone, date, lifetime } from "../format.js";

/** @param {HTMLElement} root */
export function mount(root) {
  const body = root.querySelector("tbody");
  const note = root.querySelector(".note");

  function create() {
    const left = chip("idle", "");
    return { ...row(["name"], ["left", left], ["until"], ["serial"]), left };
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ certificates }) {
      const sorted = [...certificates].sort((a, b) => a.days_left - b.days_left);
      keyed(body, sorted, ({ name, serial }) => `${name} ${serial}`, create, ({ node, cell, left }, certificate) => {
        text(cell.name, certificate.name);
        setChip(left, certificateTone(certificate.days_left), lifetime(certificate.days_left));
        text(cell.until, date(certificate.not_after));
        text(cell.serial, certificate.serial);
        hint(node, `${certificate.name}: until ${date(certificate.not_after)} UTC, serial ${certificate.serial}`);
      });
      text(note, certificates.length ? String(certificates.length) : "");
      emptyNote(root, certificates.length ? null : "No certificate is known yet.");
    },
  };
}
