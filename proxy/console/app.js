// Boot: mounts the views, follows the two streams, keeps what is shown in the address.
//
// The address carries the state worth sharing: #breaker=NAME&symbol=NAME.

import { events as fetchEvents, onToken } from "./api.js";
import { follow } from "./live.js";
import { chip, el, hint, keyed, mark, setChip, text } from "./dom.js";
import { clock, duration, tone, title, word } from "./format.js";
import { mount as mountAlerts } from "./views/alerts.js";
import { mount as mountBreaker } from "./views/breaker.js";
import { mount as mountGroups } from "./views/groups.js";
import { mount as mountInstrument } from "./views/instrument.js";
import { mount as mountKill } from "./views/kill.js";
import { mount as mountLanes } from "./views/lanes.js";
import { mount as mountRoutes } from "./views/routes.js";
import { mount as mountSecurity } from "./views/security.js";
import { mount as mountStrip } from "./views/strip.js";
import { mount as mountTape } from "./views/tape.js";
import { mount as mountToken } from "./views/token.js";
import { mount as mountUpstreams } from "./views/upstreams.js";

/** Snapshots come every 250 ms: without one for this long the figures are stale. */
const STALE_AFTER_MS = 2500;
/** The event stream's heartbeat comes every 15 s. */
const EVENTS_SILENCE_MS = 40_000;
const TAPE_HISTORY = 100;
/** From this many routes on the tables are drawn once a second: hundreds of lines cost a frame each time. */
const ROUTES_MANY = 48;
const TABLES_EVERY_MS = 1000;

const byId = (id) => document.getElementById(id);
const address = () => new URLSearchParams(location.hash.slice(1));

let snapshot = null;
let heardAt = null;
let refused = null;
let frame = 0;
let tablesAfter = 0;

// What the page is made of.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const page = {
  colour,
  openBreaker: (name) => go("breaker", name),
  closed: () => go("breaker", null),
  askToken: () => token.ask(),
  pickSymbol: (name) => go("symbol", name),
  symbolPicked: (name) => go("symbol", name),
};
const panel = mountBreaker(byId("panel"), page);
const token = mountToken(byId("token"));
const kill = mountKill(byId("kill"), page);
const tape = mountTape(byId("tape"), page);
const instrument = mountInstrument(byId("instrument"), page);
const tables = [mountRoutes(byId("routes"), page), mountUpstreams(byId("upstreams"), page), mountLanes(byId("lanes"))];
const figures = [mountStrip(byId("strip")), mountSecurity(byId("security")), mountAlerts(byId("alerts")), mountGroups(byId("tape")), kill, panel];

// Snapshots.

function render() {
  frame = 0;
  if (!snapshot || document.hidden) return;
  text(byId("version"), snapshot.version);
  byId("mode").hidden = false;
  text(byId("mode"), snapshot.dev ? "DEV" : "PROD");
  mark(byId("mode"), "dev", snapshot.dev);
  document.title = `${title(snapshot.state)} · Sluice`;
  const create = () => ({ node: el("li", {}, chip("idle", "")) });
  keyed(byId("workers"), snapshot.workers, ({ role }) => role, create, ({ node }, worker) => {
    const well = worker.status === "healthy";
    setChip(node.firstChild, tone(worker.status), well ? worker.role : `${worker.role} ${word(worker.status)}`);
    hint(node, worker.detail ?? word(worker.status));
  });
  for (const view of figures) view.update(snapshot);
  if (performance.now() < tablesAfter) return;
  for (const view of tables) view.update(snapshot);
  tablesAfter = snapshot.routes.length < ROUTES_MANY ? 0 : performance.now() + TABLES_EVERY_MS;
}

const schedule = () => {
  if (!frame) frame = requestAnimationFrame(render);
};

/** Says whether the figures are live; once stale, since when. */
function tick() {
  const silent = heardAt === null ? null : performance.now() - heardAt;
  const state = refused ? "refused" : silent === null ? "connecting" : silent > STALE_AFTER_MS ? "stale" : "live";
  const words = {
    refused: `No reading: ${refused}`,
    connecting: "Connecting",
    stale: snapshot && `Stale since ${clock(snapshot.at)} UTC`,
    live: "Live",
  };
  mark(document.body, "live", state);
  text(byId("live"), words[state]);
  const now = snapshot ? `${clock(snapshot.at)} UTC` : "";
  text(byId("clock"), state === "stale" ? `${duration(silent / 1000)} ago` : now);
}

const snapshots = follow("/dashboard/stream", {
  silenceMs: STALE_AFTER_MS * 2,
  onFrame({ event, data }) {
    if (event !== "snapshot") return;
    snapshot = JSON.parse(data);
    heardAt = performance.now();
    schedule();
  },
  onState(state, cause) {
    if (state === "live") refused = null;
    if (cause?.status === 401 || cause?.status === 403) {
      if (!refused) token.ask();
      refused = cause.message;
    }
    tick();
  },
});

// Events.

async function seed() {
  const stored = await fetchEvents({ limit: TAPE_HISTORY }).catch(() => []);
  tape.seed(stored);
  instrument.seed(stored);
}

const tail = follow("/events/stream", {
  silenceMs: EVENTS_SILENCE_MS,
  onFrame({ event, data }) {
    const said = JSON.parse(data);
    const happened = event === "gap" ? { event_type: "gap", timestamp: new Date().toISOString(), data: said } : said;
    if (typeof happened?.event_type !== "string") return;
    tape.push(happened);
    instrument.push(happened);
  },
  onState(state, cause) {
    if (state === "live") seed();
    const words = { live: null, connecting: "connecting", waiting: cause?.status ? cause.message : "reconnecting" };
    tape.trouble(words[state]);
  },
});

// The address, keys, colours, visibility.

function go(name, value) {
  const next = address();
  if (value === null) next.delete(name);
  else next.set(name, value);
  if (String(next) === String(address())) return;
  history.replaceState(null, "", String(next) ? `#${next}` : location.pathname);
  route();
}

function route() {
  const shown = address();
  if (shown.has("symbol")) instrument.pick(shown.get("symbol"));
  if (shown.has("breaker")) panel.open(shown.get("breaker"));
  else panel.close();
  schedule();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    tape.filter.focus();
  }
  if (event.key !== "Escape" || token.close() || kill.close()) return;
  if (address().has("breaker")) go("breaker", null);
  else if (event.target === tape.filter) tape.filter.blur();
});
document.addEventListener("visibilitychange", schedule);
window.addEventListener("hashchange", route);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => instrument.repaint());
onToken(() => {
  refused = null;
  snapshots.restart();
  tail.restart();
  instrument.reload();
});
setInterval(tick, 500);

instrument.repaint();
route();
