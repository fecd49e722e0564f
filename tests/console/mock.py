"""A control port without a gateway: serves the console's files and synthesised streams.

`mock.py --port 8012` to look at the page by hand; check.py --mock drives one of its own.
The snapshot starts from proxy/console/fixtures/snapshot.json, so the example is exercised too.
Standard library only. Everything random comes from one seed.
"""

import argparse
import json
import math
import random
import threading
import time
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CONSOLE = Path(__file__).resolve().parents[2] / "proxy" / "console"
TOKEN = "mock-token"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
SYMBOLS = {"AAPL": 182.0, "BTC/USDT": 42_100.0, "SPY": 471.0}
EVENTS_MOST = 6000
DAY_MS = 86_400_000


def iso(seconds):
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Market:
    """A random walk a symbol, one daily bar a step, and a signal where two averages cross."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.closes = {symbol: [start] for symbol, start in SYMBOLS.items()}
        self.day = {symbol: 1_546_300_800_000 for symbol in SYMBOLS}

    def step(self, symbol):
        closes = self.closes[symbol]
        before = closes[-1]
        drift = 0.0006 + 0.004 * math.sin(len(closes) / 37)
        close = max(before * (1 + self.random.gauss(drift, 0.013)), 0.01)
        opened = before * (1 + self.random.gauss(0, 0.003))
        wick = abs(self.random.gauss(0, 0.006)) + 0.001
        closes.append(close)
        self.day[symbol] += DAY_MS
        bar = {
            "symbol": symbol, "open": opened, "high": max(opened, close) * (1 + wick),
            "low": min(opened, close) * (1 - wick), "close": close,
            "volume": self.random.lognormvariate(17, 0.35), "timestamp": self.day[symbol], "timeframe": "1d",
        }
        return bar, self.signal(symbol)

    def signal(self, symbol):
        closes = self.closes[symbol]
        if len(closes) < 32:
            return None
        gap = [sum(closes[n - 8:n]) / 8 - sum(closes[n - 30:n]) / 30 for n in (len(closes) - 1, len(closes))]
        if gap[0] * gap[1] > 0:
            return None
        return {"symbol": symbol, "timestamp": self.day[symbol], "timeframe": "1d", "price": closes[-1],
                "action": "BUY" if gap[1] > 0 else "SELL", "confidence": round(self.random.uniform(0.5, 0.95), 2),
                "strategy": "ema_crossover", "reason": "averages crossed"}


def rsi(closes, period):
    out, gain, loss = [None] * len(closes), 0.0, 0.0
    for i in range(1, len(closes)):
        up, down = max(closes[i] - closes[i - 1], 0), max(closes[i - 1] - closes[i], 0)
        if i <= period:
            gain, loss = gain + up / period, loss + down / period
        else:
            gain, loss = (gain * (period - 1) + up) / period, (loss * (period - 1) + down) / period
        if i >= period:
            out[i] = 100 * gain / (gain + loss) if gain + loss else 0.0
    return {"value": out}


def bbands(closes, period):
    upper, middle, lower = ([None] * len(closes) for _ in range(3))
    for i in range(period - 1, len(closes)):
        window = closes[i - period + 1:i + 1]
        mean = sum(window) / period
        spread = 2 * math.sqrt(sum((value - mean) ** 2 for value in window) / period)
        upper[i], middle[i], lower[i] = mean + spread, mean, mean - spread
    return {"upper": upper, "middle": middle, "lower": lower}


class Mock:
    """What the handlers share. `paused` freezes both streams with the connections open; `closed` lets
    nobody read without a token, as a port that is not on loopback."""

    def __init__(self, seed=7, empty=False):
        self.example = json.loads((CONSOLE / "fixtures" / "snapshot.json").read_text())
        self.random = random.Random(seed)
        self.market = Market(seed)
        self.changed = threading.Condition()
        self.events, self.seq = [], 0
        self.breakers = {route["name"]: dict(route["breaker"]) for route in self.example["routes"]}
        self.holds = {}
        self.switches = {(one["scope"], one["target"]): one for one in self.example["kill_switch"]["switches"]}
        self.paused, self.stopped, self.closed, self.empty = False, False, False, empty
        self.started = time.time()
        if not empty:
            for _ in range(260):
                for symbol in SYMBOLS:
                    self.trade(symbol)
            threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        symbols = list(SYMBOLS)
        while not self.stopped:
            time.sleep(0.15)
            if self.paused:
                continue
            self.trade(self.random.choice(symbols))
            if self.random.random() < 0.04:
                self.publish("system_health", "edge", {"status": "degraded", "component": "trading_bot"})

    def trade(self, symbol):
        bar, signal = self.market.step(symbol)
        self.publish("market_data_update", "demo", bar)
        if signal:
            self.publish("trading_signal", "demo", signal)

    def publish(self, event_type, source, data):
        with self.changed:
            self.seq += 1
            now = time.time()
            self.events.append({
                "event_type": event_type, "event_id": str(uuid.UUID(int=self.random.getrandbits(128))),
                "timestamp": iso(now), "source": source, "data": data, "metadata": {},
                "message_id": f"{int(now * 1000)}-{self.seq}", "seq": self.seq, "partition": 0,
            })
            del self.events[:-EVENTS_MOST]
            self.changed.notify_all()

    def snapshot(self):
        """The example with figures that move."""
        now, wobble = time.time(), self.random.uniform
        if self.empty:
            return self.bare(now)
        shot = json.loads(json.dumps(self.example))
        shot["at"], shot["uptime_s"] = iso(now), round(now - self.started + 8123, 1)
        shot["generation"]["loaded_at"] = iso(self.started - 2900)
        shot["store"].update(stream_length=len(self.events), last_seq=self.seq,
                             events_per_s=round(wobble(6, 7), 1), oldest_age_s=round(now - self.started + 604_000, 1))
        shot["store"]["groups"][0].update(lag=self.random.randint(0, 40), lag_s=round(wobble(0, 2), 2))
        shot["feed"]["age_s"] = round(wobble(0.05, 1.0), 2)
        for route in shot["routes"]:
            factor = 1 + 0.08 * math.sin(now / 3 + len(route["name"])) + wobble(-0.02, 0.02)
            base = route["rps"]
            route["rps"] = round(base * factor, 1)
            route["spark"] = [self.second(route["name"], base, int(now) - 59 + i) for i in range(60)]
            for figure in ("p50_ms", "p99_ms"):
                route[figure] = round(route[figure] * wobble(0.9, 1.12), 2)
            breaker = route["breaker"] = self.breakers[route["name"]]
            if breaker["retry_at"]:
                breaker["retry_at"] = iso(now + 30 - now % 30)
            for instance in route["instances"]:
                instance["last_probe"]["at"] = iso(now - now % 2)
                unheld = (instance["state"], None)
                instance["state"], instance["held"] = self.holds.get((route["name"], instance["url"]), unheld)
        shot["kill_switch"] = {"count": len(self.switches), "switches": list(self.switches.values())}
        totals = shot["totals"]
        totals["rps"] = round(sum(route["rps"] for route in shot["routes"]), 1)
        totals["in_flight"] = self.random.randint(12, 22)
        for figure in ("p50_ms", "p99_ms", "p999_ms"):
            totals[figure] = round(totals[figure] * wobble(0.93, 1.08), 2)
        for alert in shot["alerts"]:
            alert["since"], alert["timestamp"] = iso(self.started - 340), iso(now)
        return shot

    @staticmethod
    def second(name, base, second):
        """The requests of one second: the same whenever it is asked."""
        noise = random.Random(f"{name} {second}").gauss(0, 0.07)
        return round(max(base * (1 + 0.25 * math.sin(second / 9 + len(name)) + noise), 0), 1)

    def bare(self, now):
        """A system that was just started and knows nothing yet."""
        return {
            **self.example, "at": iso(now), "state": "healthy", "uptime_s": 1.2, "dev": False,
            "generation": {**self.example["generation"], "number": 1, "loaded_at": iso(now)},
            "totals": {"rps": 0, "error_pct": None, "p50_ms": None, "p99_ms": None, "p999_ms": None,
                       "limited_per_s": 0, "in_flight": 0, "connections": 1, "requests_total": 0},
            "feed": {"age_s": None, "epoch": None},
            "store": {"kind": None, "stream_length": None, "last_seq": None, "events_per_s": None,
                      "oldest_age_s": None, "groups": [], "groups_total": None, "dead_letters": None},
            "certificates": [], "workers": [], "gates": [], "routes": [], "routes_total": 0, "alerts": [],
            "kill_switch": {"count": 0, "switches": []},
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def mock(self):
        return self.server.mock

    def answer(self, status, body, kind="application/json", extra=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (("content-type", kind), ("content-length", str(len(data))),
                            ("cache-control", "no-cache"), ("x-content-type-options", "nosniff"), *extra):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, code, detail):
        self.answer(status, {"type": "about:blank", "title": code, "status": status, "code": code,
                             "detail": detail, "request_id": "mock-request-1"}, "application/problem+json")

    def allowed(self, write):
        given = self.headers.get("authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            self.refuse(401, "invalid_token", "the token is not valid")
            return False
        if (write or self.mock.closed) and given is None:
            self.refuse(401, "authentication_required", "a token is needed here")
            return False
        return True

    def do_GET(self):
        target = urlsplit(self.path)
        path, query = unquote(target.path), parse_qs(target.query)
        if path == "/dashboard" or (path.startswith("/dashboard/") and path != "/dashboard/stream"):
            return self.file(path.removeprefix("/dashboard").strip("/") or "index.html")
        if not self.allowed(write=False):
            return None
        if path == "/dashboard/stream":
            return self.snapshots()
        if path == "/events/stream":
            return self.tail()
        if path == "/events":
            return self.list(query)
        if path == "/circuit-breakers":
            return self.answer(200, {"circuit_breakers": list(self.mock.breakers), "count": len(self.mock.breakers)})
        if path.startswith("/circuit-breakers/"):
            return self.breaker(path.split("/")[2])
        if path == "/alerts":
            alerts = self.mock.snapshot()["alerts"]
            return self.answer(200, {"alerts": alerts, "alert_count": len(alerts)})
        return self.refuse(404, "not_found", "no such path")

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(raw or b"{}")
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts == ["calculations", "indicators"]:
            return self.allowed(write=False) and self.indicators(body)
        if parts == ["admin", "kill-switch"]:
            return self.allowed(write=True) and self.throw(body)
        if parts[:2] == ["admin", "upstreams"]:
            return self.allowed(write=True) and self.hold(body)
        if len(parts) != 3 or parts[0] != "circuit-breakers" or parts[1] not in self.mock.breakers:
            return self.refuse(404, "not_found", "no such path")
        if not self.allowed(write=True):
            return None
        breaker = self.mock.breakers[parts[1]]
        if parts[2] == "reset":
            breaker.update(state="closed", failures=0, retry_at=None, forced=None)
        elif parts[2] == "force" and body.get("state") in ("open", "closed") and body.get("reason"):
            breaker.update(state=body["state"], forced=body["state"], retry_at=None)
        else:
            return self.refuse(422, "invalid_request", "state must be open or closed, with a reason")
        return self.answer(200, {"status": "success", "name": parts[1], "new_state": breaker["state"]})

    def throw(self, body):
        scope, target = body.get("scope"), body.get("target")
        named = target is None if scope == "all" else scope in ("service", "account", "symbol") and target
        if not named or not body.get("reason"):
            return self.refuse(422, "unprocessable", "scope, target and reason are needed")
        known = self.mock.switches.pop((scope, target), None)
        answer = {"status": "success", "scope": scope, "target": target, "on": body["on"],
                  "changed": (known is None) == body["on"]}
        if body["on"]:
            answer |= {"cancel_lane_open": body.get("cancel_lane_open", True), "reason": body["reason"],
                       "by": "mock", "since": iso(time.time()), "edge": "00000000000000ab", "persisted": True,
                       "broadcast": "delivered"}
            self.mock.switches[scope, target] = answer
        return self.answer(200, answer)

    def hold(self, body):
        """The instance's address has slashes of its own, so the path is cut before it is decoded."""
        service, url, held_as = (unquote(part) for part in urlsplit(self.path).path.split("/")[3:])
        state = {"drain": "draining", "maint": "maint", "ready": "healthy"}[held_as]
        held = {"as": held_as, "reason": body.get("reason", ""), "by": "mock", "since": iso(time.time())}
        self.mock.holds[service, url] = (state, None if held_as == "ready" else held)
        return self.answer(200, {"status": "success", "service": service, "instance": url, "state": state,
                                 "in_flight": 3})

    def file(self, name):
        path = (CONSOLE / name).resolve()
        served = path.is_relative_to(CONSOLE) and path.suffix in TYPES and path.is_file()
        if not served:
            return self.refuse(404, "not_found", "no such file")
        return self.answer(200, path.read_bytes(), TYPES[path.suffix], [("content-security-policy", CSP)])

    def breaker(self, name):
        if name not in self.mock.breakers:
            return self.refuse(404, "not_found", "no such breaker")
        return self.answer(200, {
            "name": name, **self.mock.breakers[name], "opened_at": None,
            "metrics": {"total_requests": 48213, "total_failures": 31, "rejected_total": 12, "transitions_total": 4},
            "config": {"failure_threshold": 5, "recovery_timeout_s": 30, "half_open_max": 3}})

    def list(self, query):
        wanted = {name: query[name][0] for name in ("event_type", "symbol") if name in query}
        found = [event for event in self.mock.events
                 if wanted.get("event_type", event["event_type"]) == event["event_type"]
                 and wanted.get("symbol", event["data"].get("symbol")) == event["data"].get("symbol")]
        found = found[::-1][:int(query.get("limit", ["100"])[0])]
        self.answer(200, {"events": found, "count": len(found), "next_cursor": None})

    def indicators(self, body):
        closes = [row[4] for row in body["data"]]
        known = {"rsi": rsi, "bbands": bbands}
        values = {want["name"]: known[want["name"]](closes, want["period"]) for want in body["indicators"]}
        self.answer(200, {"success": True, "count": len(closes), "indicators": values})

    def stream(self):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-store")
        self.send_header("connection", "close")
        self.end_headers()

    def frame(self, text):
        self.wfile.write(text.encode())
        self.wfile.flush()

    def snapshots(self):
        self.stream()
        while not self.mock.stopped:
            if not self.mock.paused:
                self.frame(f"event: snapshot\ndata: {json.dumps(self.mock.snapshot())}\n\n")
            time.sleep(0.22)

    def tail(self):
        self.stream()
        self.frame(": connected\n\n")
        seen = self.mock.seq
        while not self.mock.stopped:
            with self.mock.changed:
                self.mock.changed.wait(timeout=1)
                fresh = [event for event in self.mock.events[-500:] if event["seq"] > seen]
            seen = fresh[-1]["seq"] if fresh else seen
            for event in fresh:
                self.frame(f"id: {event['message_id']}\nevent: {event['event_type']}\ndata: {json.dumps(event)}\n\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, mock, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.mock = mock

    def handle_error(self, *_):
        """A viewer that leaves breaks its stream; that is no error."""


def serve(mock, port=0):
    """Starts a server in the background; answers it and its address."""
    server = Server(mock, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--port", type=int, default=8012)
    flags.add_argument("--empty", action="store_true", help="a system that knows nothing yet")
    given = flags.parse_args()
    print(f"http://127.0.0.1:{given.port}/dashboard  token: {TOKEN}")
    Server(Mock(empty=given.empty), given.port).serve_forever()
