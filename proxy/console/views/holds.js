// The instances of one service in its panel, and holding them back: drained, in maintenance, ready again.

import { hasToken, holdInstance, onToken } from "../api.js";
import { chip, el, keyed, mark, setChip, text } from "../dom.js";
import { between, duration, number, tone, word } from "../format.js";

/** For so long the second press counts. */
const ARMED_MS = 5000;
const ACTS = [
  ["drain", "Drain", "no new callers; what is under way ends"],
  ["maint", "Maintenance", "nothing, not even probes"],
  ["ready", "Ready", "takes its share again, slowly"],
];

/** The words of the API for the states that operators make. */
const HELD_AS = { draining: "drain", maint: "maint" };

function heldWords({ held }, at) {
  if (!held) return "";
  const why = held.reason ? `: ${held.reason}` : "";
  return `${held.by}, ${duration(between(held.since, at))} ago${why}`;
}

/** @param {HTMLElement} root the panel's part */
export function mount(root) {
  const part = (role) => root.querySelector(`[data-role=${role}]`);
  const [list, reason, answer] = [part("instances"), part("hold-reason"), part("hold-answer")];
  let service = null;
  let armed = null;
  let timer = 0;

  function say(words, kind) {
    text(answer, words);
    mark(answer, "tone", kind);
  }

  function disarm() {
    clearTimeout(timer);
    if (!armed) return;
    text(armed.button, armed.label);
    mark(armed.button, "armed", null);
    armed = null;
  }

  function lock() {
    for (const control of root.querySelectorAll("button, input")) control.disabled = !hasToken();
  }

  async function act(url, as, label) {
    const asked = service;
    say(`${label}…`, null);
    try {
      const { state, in_flight: flight } = await holdInstance(asked, url, as, reason.value.trim());
      reason.value = "";
      if (asked === service) say(`Done: ${url} is ${word(state)}, ${number(flight)} in flight.`, "ok");
    } catch (error) {
      const id = error.requestId ? ` (request ${error.requestId})` : "";
      if (asked === service) say(`Refused: ${error.message}${id}`, "bad");
    }
  }

  /** The first press arms, the second acts; taking an instance back needs one. */
  function press(button, url, as, label) {
    const sure = as === "ready" || armed?.button === button;
    disarm();
    if (sure) return act(url, as, label);
    armed = { button, label };
    text(button, `${label} now`);
    mark(button, "armed", true);
    timer = setTimeout(disarm, ARMED_MS);
    return undefined;
  }

  function create({ url }) {
    const [state, why] = [chip("idle", ""), el("span", { class: "quiet" })];
    const buttons = ACTS.map(([as, label, title]) => {
      const button = el("button", { type: "button", title, "data-hold": as, "aria-label": `${label} ${url}` }, label);
      button.addEventListener("click", () => press(button, url, as, label));
      button.disabled = !hasToken();
      return button;
    });
    return { node: el("li", {}, state, why, el("span", { class: "buttons" }, ...buttons)), state, why, buttons };
  }

  onToken(lock);
  lock();

  return {
    /** Begins with another service, or with none. */
    open(name) {
      disarm();
      say("", null);
      reason.value = "";
      service = name;
    },
    /** @param {import("../snapshot.js").Instance[]} instances @param {string} at */
    update(instances, at) {
      keyed(list, instances, ({ url }) => `${service} ${url}`, create, ({ state, why, buttons }, instance) => {
        const load = `${word(instance.state)} · ${number(instance.in_flight)} in flight`;
        setChip(state, tone(instance.state), `${instance.url} · ${load}`);
        text(why, heldWords(instance, at));
        const now = instance.held?.as ?? HELD_AS[instance.state] ?? "ready";
        for (const button of buttons) button.hidden = button.dataset.hold === now;
      });
    },
  };
}
