// Calls to the control port: same origin, JSON, the token in the Authorization header only.
// The token lives in this tab's sessionStorage and nowhere else.

const KEY = "sluice.token";
let token = sessionStorage.getItem(KEY);
const listeners = new Set();

/** Whether a token is set: without one the page only reads. */
export const hasToken = () => token !== null;

/** Sets the token, or forgets it when empty, and tells the listeners. */
export function setToken(value) {
  token = value.trim() || null;
  if (token === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
  for (const listener of listeners) listener();
}

/** Calls `listener` after each change of the token. */
export const onToken = (listener) => listeners.add(listener);

/** The headers every request carries. */
export const headers = (more = {}) =>
  token === null ? more : { ...more, authorization: `Bearer ${token}` };

/** A refusal: its status, machine word, public text and request id. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.code = problem.code ?? null;
    this.requestId = problem.request_id ?? null;
  }
}

/** Turns a refused response into a `Refused`, reading its problem body when it has one. */
export async function refusal(response) {
  const problem = await response.json().catch(() => ({}));
  return new Refused(response.status, problem ?? {});
}

async function call(method, path, body) {
  const json = body === undefined ? {} : { "content-type": "application/json" };
  const response = await fetch(path, {
    method,
    headers: headers({ accept: "application/json", ...json }),
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "omit",
    cache: "no-store",
    signal: AbortSignal.timeout(15_000),
  });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

const segment = encodeURIComponent;

/** All breakers; also how a token is tried. */
export const breakers = () => call("GET", "/circuit-breakers");

/** One breaker with its metrics and configuration. */
export const breaker = (name) => call("GET", `/circuit-breakers/${segment(name)}`);

/** Closes a breaker and forgets its failures. */
export const resetBreaker = (name) => call("POST", `/circuit-breakers/${segment(name)}/reset`, {});

/** Holds a breaker open or closed until it is reset. */
export const forceBreaker = (name, state, reason) =>
  call("POST", `/circuit-breakers/${segment(name)}/force`, { state, reason });

/** Stops something, or lets it go on: {scope, target, on, reason, cancel_lane_open}. */
export const throwSwitch = (change) => call("POST", "/admin/kill-switch", change);

/** Holds an instance of a service back as "drain" or "maint", or takes it back with "ready". */
export const holdInstance = (service, url, as, reason) =>
  call("POST", `/admin/upstreams/${segment(service)}/${segment(url)}/${as}`, { reason });

/** Stored events, newest first. */
export async function events(filter) {
  const query = new URLSearchParams({ order: "desc", ...filter });
  return (await call("GET", `/events?${query}`)).events;
}

/** Indicators over rows [[ts, open, high, low, close, volume], …], oldest first. */
export const indicators = async (data, wanted) =>
  (await call("POST", "/calculations/indicators", { data, indicators: wanted })).indicators;
