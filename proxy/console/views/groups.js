// One chip a consumer group under the tape: how far behind it is, how old that is, its dead letters.

import { chip, el, hint, keyed, setChip, text } from "../dom.js";
import { compact, duration, number } from "../format.js";

/** From here on a group that is behind is not just busy. */
const LATE_S = 60;

/** "12 behind, 0.4 s", "up to date", "3 dead" */
export function groupWords({ lag, lag_s: lagS, pending, dead_letters: dead }) {
  const behind = lag > 0 || pending > 0 ? `${compact(lag)} behind, ${duration(lagS)}` : "up to date";
  return dead > 0 ? `${behind} · ${compact(dead)} dead` : behind;
}

export const groupTone = ({ lag_s: lagS, dead_letters: dead }) => (dead > 0 ? "bad" : lagS > LATE_S ? "warn" : "ok");

/** @param {HTMLElement} root the tape */
export function mount(root) {
  const footer = root.querySelector("footer");
  const list = footer.querySelector("ul");
  const more = footer.querySelector("span");

  function create() {
    const [state, words] = [chip("idle", ""), el("span", { class: "quiet" })];
    return { node: el("li", {}, state, " ", words), state, words };
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ store: { groups, groups_total: total, oldest_age_s: oldest } }) {
      keyed(list, groups, ({ name }) => name, create, ({ node, state, words }, group) => {
        setChip(state, groupTone(group), group.name);
        text(words, groupWords(group));
        const { lag, lag_s: lagS, pending, dead_letters: dead } = group;
        hint(node, `${group.name}: ${number(lag)} events not looked at, oldest unsettled ${duration(lagS)}, ` +
          `${number(pending)} handed out, ${number(dead)} dead letters`);
      });
      const hidden = (total ?? 0) - groups.length;
      const words = [hidden > 0 && `and ${number(hidden)} more groups`, oldest > 0 && `oldest event ${duration(oldest)}`];
      text(more, words.filter(Boolean).join(" · "));
      footer.hidden = !groups.length && !more.textContent;
    },
  };
}
