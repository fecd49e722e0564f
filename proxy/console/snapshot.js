// The shape of one dashboard snapshot, and the few figures the page derives from it.
//
// The gateway sends it as `event: snapshot` on GET /dashboard/stream, the whole object on one
// `data:` line, four to five times a second, from one shared value: its cost does not grow with the viewers.
// fixtures/snapshot.json is a complete example. A figure that cannot be known yet is null, never 0 and
// never left out; the page shows null as a dash. Times are RFC 3339 in UTC. Rates, percentages and
// percentiles cover the last 10 seconds. Fields the page does not know are ignored.

/**
 * @typedef {object} Snapshot
 * @property {string} at                 when it was taken
 * @property {"healthy"|"degraded"|"unhealthy"|"draining"} state
 * @property {string} version            of the binary, without a leading v
 * @property {number} uptime_s
 * @property {boolean} dev               true under --dev
 * @property {Generation} generation     of the configuration
 * @property {Totals} totals             of the whole edge
 * @property {Feed} feed                 the vault's feed of keys and revocations
 * @property {Store} store               the event store
 * @property {Certificate[]} certificates  at most 64, soonest to expire first
 * @property {Worker[]} workers          one a role that is configured, the edge included
 * @property {Route[]} routes            at most 256, busiest first
 * @property {number} routes_total       how many there are, also those not listed
 * @property {Gate[]} gates              at most 32, where most wait first
 * @property {KillSwitches} kill_switch  what is stopped by hand
 * @property {Alert[]} alerts            at most 100, newest first; the items of GET /alerts
 *
 * @typedef {object} Generation
 * @property {number} number             1 at start, +1 a successful reload
 * @property {string} hash               12 hexadecimal digits of the effective configuration
 * @property {string} loaded_at
 * @property {?string} last_error        why the last reload was refused; null when it was not
 *
 * @typedef {object} Totals
 * @property {number} rps
 * @property {?number} error_pct         0–100, answers of 500 and above; null without requests
 * @property {?number} p50_ms            whole time at the edge; null without requests
 * @property {?number} p99_ms
 * @property {?number} p999_ms
 * @property {number} limited_per_s      answers 429 a second
 * @property {number} in_flight          requests
 * @property {number} connections        open client connections
 * @property {number} requests_total     since start
 *
 * @typedef {object} Feed
 * @property {?number} age_s             since the last message; null before the first
 * @property {?(number|string)} epoch    of the vault that feeds
 *
 * @typedef {object} Store
 * @property {?("embedded"|"redis")} kind
 * @property {?number} stream_length     events kept; null while the events worker is away
 * @property {?number} last_seq
 * @property {?number} events_per_s      stored; null before two looks at the stream
 * @property {?number} oldest_age_s      since the oldest stored event
 * @property {Group[]} groups            at most 16 consumer groups: with dead letters first, then furthest behind
 * @property {?number} groups_total      how many there are, also those not listed
 * @property {?number} dead_letters      of all groups
 *
 * @typedef {object} Group
 * @property {string} name
 * @property {number} lag                events it has not looked at
 * @property {number} lag_s              age of the oldest event it has not settled
 * @property {number} pending            messages handed out and not settled
 * @property {number} dead_letters
 *
 * @typedef {object} Certificate
 * @property {string} name               what it is for
 * @property {string} serial             hexadecimal
 * @property {string} not_after
 * @property {number} days_left          fraction allowed, negative when expired
 *
 * @typedef {object} Worker
 * @property {"edge"|"events"|"vault"|"calc"|"demo"|"supervisor"} role
 * @property {"healthy"|"degraded"|"unhealthy"|"draining"|"unknown"} status
 * @property {?string} detail            one line; null when there is nothing to say
 *
 * @typedef {object} Route
 * @property {string} name               of the service, also of its breaker
 * @property {string} prefix
 * @property {number} rps
 * @property {?number} error_pct
 * @property {?number} p50_ms
 * @property {?number} p99_ms
 * @property {number} in_flight
 * @property {number} limited_per_s
 * @property {number[]} spark            requests in each of the last 60 s, oldest first; shorter after a start
 * @property {?Breaker} breaker          null for a route without one
 * @property {?("cancel"|"order"|"query"|"analytics")} [lane]
 * @property {?Concurrency} [concurrency]  null for a route whose requests never wait
 * @property {boolean} auth_required
 * @property {Instance[]} instances      at most 64
 *
 * @typedef {object} Concurrency
 * @property {number} limit              requests its instances get at once, shared with routes to the same ones
 * @property {boolean} adaptive          whether the limit follows their latency
 * @property {number} running            of this route
 * @property {number} waiting            of this route
 * @property {number} shed               turned away since the start
 *
 * @typedef {object} Breaker
 * @property {"closed"|"open"|"half_open"} state
 * @property {number} failures           in the present window
 * @property {?string} retry_at          when an open one admits its next probe; null unless it waits
 * @property {?("open"|"closed")} forced null when it decides by itself
 *
 * @typedef {object} Instance
 * @property {string} url
 * @property {number} weight
 * @property {"healthy"|"unhealthy"|"ejected"|"draining"|"maint"} state
 * @property {number} in_flight
 * @property {?number} ewma_ms           null before its first answer
 * @property {?Probe} last_probe         null before its first probe
 * @property {?Held} held                what an operator holds it as; null where nobody does
 *
 * @typedef {object} Held
 * @property {"drain"|"maint"} as
 * @property {string} reason             may be empty
 * @property {string} by
 * @property {string} since
 *
 * @typedef {object} Gate                what one set of instances gets at once
 * @property {string[]} services         that share it
 * @property {number} limit
 * @property {boolean} adaptive          whether the limit follows the latency
 * @property {number} running
 * @property {number} waiting
 * @property {Object<"cancel"|"order"|"query"|"analytics", GateLane>} lanes
 *
 * @typedef {object} GateLane
 * @property {number} running
 * @property {number} waiting
 * @property {number} shed               turned away since the start
 *
 * @typedef {object} Probe
 * @property {string} at
 * @property {boolean} ok
 * @property {?number} ms                null when nothing answered
 * @property {?string} detail            "200", "connect refused", …
 *
 * @typedef {object} KillSwitches
 * @property {number} count              how many are on, also those not listed
 * @property {KillSwitch[]} switches     at most 32, widest first; the items of GET /admin/kill-switch
 *
 * @typedef {object} KillSwitch
 * @property {"all"|"service"|"account"|"symbol"} scope
 * @property {?string} target            null for all
 * @property {boolean} cancel_lane_open
 * @property {string} reason
 * @property {string} by
 * @property {string} since
 * @property {boolean} persisted         on this edge's disk
 * @property {"delivered"|"unsigned"|"pending"|"none"} broadcast  whether other edges can know and obey; none without a stream
 *
 * @typedef {object} Alert
 * @property {"info"|"warning"|"critical"} level
 * @property {string} service
 * @property {string} message
 * @property {string} since              when it began
 * @property {string} timestamp          when it was last true
 */

/** Breakers that are not closed. @param {Snapshot} snapshot */
export const openBreakers = (snapshot) =>
  snapshot.routes.filter((route) => route.breaker && route.breaker.state !== "closed");

/** The certificate that expires first, or null. @param {Snapshot} snapshot */
export const oldestCertificate = (snapshot) =>
  snapshot.certificates.reduce((first, next) => (first && first.days_left <= next.days_left ? first : next), null);

/**
 * Every instance once with the routes that use it, by URL: their requests together, the worst of their states.
 * @param {Snapshot} snapshot
 */
export function instances(snapshot) {
  const byUrl = new Map();
  for (const route of snapshot.routes) {
    for (const instance of route.instances) {
      const known = byUrl.get(instance.url);
      if (!known) {
        byUrl.set(instance.url, { ...instance, routes: [route] });
        continue;
      }
      known.routes.push(route);
      known.in_flight += instance.in_flight;
      if (known.state === "healthy") Object.assign(known, { state: instance.state, held: instance.held });
    }
  }
  return [...byUrl.values()];
}
