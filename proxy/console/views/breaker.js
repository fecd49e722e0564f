// The side panel of one service: its breaker, what that counts, reset and force; its instances.

import { breaker as fetchBreaker, forceBreaker, hasToken, onToken, resetBreaker } from "../api.js";
import { chip, el, keyed, mark, setChip, text } from "../dom.js";
import { between, clock, duration, number, tone, word } from "../format.js";
import { mount as mountHolds } from "./holds.js";

const REFRESH_MS = 2000;
const DETAILS_MOST = 40;

/** Flattens the answer's metrics and config to [name, value] pairs, bounded. */
function details(answer) {
  const parts = [answer.metrics, answer.config].filter((part) => part && typeof part === "object");
  return parts
    .flatMap((part) => Object.entries(part))
    .filter(([, value]) => value === null || typeof value !== "object")
    .slice(0, DETAILS_MOST)
    .map(([name, value]) => [word(name), plain(value)]);
}

const plain = (value) =>
  typeof value === "number" ? number(value, Number.isInteger(value) ? 0 : 2) : String(value ?? "–");

function probeWords({ retry_at: retryAt }, at) {
  if (!retryAt) return "–";
  const waits = between(at, retryAt);
  return waits > 0 ? `in ${duration(waits)}, ${clock(retryAt)} UTC` : "due now";
}

function facts({ breaker, prefix }, at) {
  return [
    ["Route", prefix],
    ["Failures in the window", number(breaker.failures)],
    ["Next probe", probeWords(breaker, at)],
    ["Decides", breaker.forced ? `forced ${breaker.forced}, until reset` : "by itself"],
  ];
}

function pairs(list, entries) {
  const create = ([name]) => {
    const value = el("dd");
    return { node: el("div", {}, el("dt", {}, name), value), value };
  };
  keyed(list, entries, ([name]) => name, create, ({ value }, [, words]) => text(value, words));
}

/** @param {HTMLElement} root @param {{closed: () => void, askToken: () => void}} page */
export function mount(root, page) {
  const part = (role) => root.querySelector(`[data-role=${role}]`);
  const [answer, fieldset, reason] = [part("answer"), root.querySelector("fieldset"), part("reason")];
  const state = chip("idle", "");
  part("state").append(state);
  const holds = mountHolds(part("upstreams"));
  let name = null;
  let origin = null;
  let timer = 0;

  function lock() {
    fieldset.disabled = !hasToken();
    part("locked").hidden = hasToken();
  }

  function say(words, kind) {
    text(answer, words);
    mark(answer, "tone", kind);
  }

  async function refresh() {
    clearTimeout(timer);
    const asked = name;
    const got = await fetchBreaker(asked).catch(() => null);
    if (name !== asked) return;
    if (got) pairs(part("details"), details(got));
    timer = setTimeout(refresh, REFRESH_MS);
  }

  async function act(verb, request) {
    fieldset.disabled = true;
    say(`${verb}…`, null);
    try {
      const { new_state: now } = await request();
      say(`Done: ${now ? word(now) : verb.toLowerCase()} at ${clock(Date.now())} UTC.`, "ok");
      reason.value = "";
    } catch (error) {
      const id = error.requestId ? ` (request ${error.requestId})` : "";
      say(`Refused: ${error.message}${id}`, "bad");
    }
    lock();
    refresh();
  }

  root.querySelector("[data-act=reset]").addEventListener("click", () => act("Resetting", () => resetBreaker(name)));
  root.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const why = reason.value.trim();
    if (!why) {
      reason.focus();
      return say("A reason is needed: it goes into the audit log.", "warn");
    }
    return act("Forcing", () => forceBreaker(name, part("force").value, why));
  });
  root.querySelector("[data-act=close]").addEventListener("click", () => page.closed());
  root.querySelector("[data-act=token]").addEventListener("click", () => page.askToken());
  onToken(lock);
  lock();

  return {
    /** Shows the panel of a service's breaker. */
    open(service) {
      if (name === service) return;
      if (name === null) origin = document.activeElement;
      name = service;
      root.hidden = false;
      text(root.querySelector("h2"), service);
      say("", null);
      pairs(part("details"), []);
      holds.open(service);
      const path = `${location.origin}/circuit-breakers/${encodeURIComponent(service)}/reset`;
      text(part("shell"), `curl -X POST ${path} -H "Authorization: Bearer $TOKEN"`);
      root.querySelector("[data-act=close]").focus();
      refresh();
    },
    /** Hides it and gives the focus back. */
    close() {
      if (name === null) return;
      clearTimeout(timer);
      name = null;
      root.hidden = true;
      origin?.focus();
    },
    /** @param {import("../snapshot.js").Snapshot} snapshot */
    update({ at, routes }) {
      if (name === null) return;
      const route = routes.find((candidate) => candidate.name === name);
      if (!route?.breaker) {
        setChip(state, "idle", "no such breaker");
        return;
      }
      setChip(state, tone(route.breaker.state), word(route.breaker.state));
      pairs(part("facts"), facts(route, at));
      holds.update(route.instances, at);
    },
  };
}
