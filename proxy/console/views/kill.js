// The kill switch: what is stopped, letting it go on, and stopping, behind a reason and a second press.

import { hasToken, onToken, throwSwitch } from "../api.js";
import { el, keyed, mark, text } from "../dom.js";
import { between, clock, duration } from "../format.js";

const keyOf = ({ scope, target }) => (target === null ? scope : `${scope}:${target}`);
const words = ({ scope, target }) => (target === null ? "everything" : `${scope} ${target}`);

/** What is not as it should be about a switch that is on. */
function notes({ cancel_lane_open: open, persisted, broadcast }) {
  const alone = { pending: "edges not told", unsigned: "this edge alone" }[broadcast];
  const odd = [!open && "cancels too", !persisted && "not on the disk", alone];
  return odd.filter(Boolean).map((note) => ` · ${note}`).join("");
}

/** @param {HTMLElement} root @param {{askToken: () => void}} page */
export function mount(root, page) {
  const part = (role) => root.querySelector(`[data-role=${role}]`);
  const [summary, form, list] = [root.querySelector("summary"), root.querySelector("form"), root.querySelector("ul")];
  const [scope, target, reason, cancels] = ["scope", "target", "reason", "cancels"].map(part);
  const [first, second, back] = [part("stop"), part("confirm"), part("back")];
  let on = new Map();
  let waiting = null;

  function say(line, tone) {
    text(part("answer"), line);
    mark(part("answer"), "tone", tone);
  }

  /** Takes back the first press. */
  function calm() {
    waiting = null;
    first.hidden = false;
    second.hidden = back.hidden = true;
  }

  function lock() {
    for (const field of root.querySelectorAll("fieldset, li button")) field.disabled = !hasToken();
    part("locked").hidden = hasToken();
    target.disabled = scope.value === "all";
  }

  async function act(change) {
    calm();
    root.querySelector("fieldset").disabled = true;
    say(change.on ? "Stopping…" : "Letting go…", null);
    try {
      const done = await throwSwitch(change);
      const odd = [done.warning, done.on && done.persisted === false && "not on the disk yet"].filter(Boolean);
      const verb = done.on ? "is stopped" : "goes on";
      const tone = odd.length ? "warn" : "ok";
      say(`Done: ${words({ scope: done.scope, target: done.target ?? null })} ${verb}. ${odd.join(". ")}`, tone);
      reason.value = target.value = "";
    } catch (error) {
      const id = error.requestId ? ` (request ${error.requestId})` : "";
      say(`Refused: ${error.message}${id}`, "bad");
    }
    lock();
  }

  /** The change that is asked for; null where something is missing, which is said. */
  function asked(change) {
    const why = reason.value.trim();
    const lacks = !why ? reason : change.scope !== "all" && !change.target ? target : null;
    if (lacks === null) return { ...change, reason: why };
    lacks.focus();
    say(lacks === reason ? "A reason is needed: it goes into the audit log." : "Name what is stopped.", "warn");
    return null;
  }

  function press(change) {
    waiting = asked(change);
    if (!waiting) return;
    const what = words({ scope: waiting.scope, target: waiting.target ?? null });
    text(second, waiting.on ? `Stop ${what} now` : `Let ${what} go on`);
    first.hidden = true;
    second.hidden = back.hidden = false;
    say(waiting.on ? "It holds at every edge, at once." : "Orders pass again, at every edge.", "warn");
    second.focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (waiting) return;
    const all = scope.value === "all";
    const named = all ? {} : { target: target.value.trim() };
    press({ scope: scope.value, ...named, on: true, cancel_lane_open: !cancels.checked });
  });
  second.addEventListener("click", () => waiting && act(waiting));
  back.addEventListener("click", () => {
    calm();
    say("", null);
    reason.focus();
  });
  scope.addEventListener("change", lock);
  root.querySelector("[data-act=token]").addEventListener("click", () => page.askToken());
  onToken(lock);
  calm();
  lock();

  function create(item) {
    const line = el("span", { class: "message" });
    const off = el("button", { type: "button", onclick: () => {
      const { scope: of, target: name } = on.get(keyOf(item)) ?? item;
      press({ scope: of, ...(name === null ? {} : { target: name }), on: false });
    } }, "Let go");
    off.disabled = !hasToken();
    return { node: el("li", {}, line, off), line };
  }

  return {
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ at, kill_switch: { count, switches } }) {
      on = new Map(switches.map((item) => [keyOf(item), item]));
      mark(root, "on", count > 0);
      text(summary, count === 0 ? "Kill switch" : `Stopped: ${count === 1 ? words(switches[0]) : count}`);
      keyed(list, switches, keyOf, create, ({ line }, item) => {
        const since = `since ${clock(item.since)} UTC, ${duration(between(item.since, at))}`;
        text(line, `${words(item)}${notes(item)} · ${since} · ${item.by}: ${item.reason}`);
      });
      text(part("more"), count > switches.length ? `and ${count - switches.length} more` : "");
    },
    /** Closes the box; answers whether it was open. */
    close() {
      const was = root.open;
      root.open = false;
      if (was) summary.focus();
      return was;
    },
  };
}
