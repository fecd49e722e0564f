"""The generator beside wrk and h2load, on one nginx: who says how many, and how late.

    crosscheck.py --bench PATH [--seconds N]

nginx answers from memory on the first core, generators run on the second, in interleaved rounds. Three things must hold.
What the generator says it was answered is what nginx says it answered. In the closed loop it asks no slower than the other
tool, over HTTP/1.1, under TLS and over HTTP/2: a slower one would be what it measures. At a rate both see the same time to
an answer. Prints a table, a line a check, then `crosscheck: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROUNDS = 3
CONNECTIONS = 16
# One request at a time: what h2load sends at a rate leaves all its connections at once.
RATE = 1000
# A shared machine stands still at times: a round in which one tool does so is outvoted by the others.
SLOWER_MAX = 0.85
COUNTED_MAX = 0.02
# h2load counts from its send, sluice-bench from when that was due: a timer's lateness is in one of the two.
LATER_MAX_US = 250
NGINX = """worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/a; proxy_temp_path {dir}/b;
  fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;
  server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key;
    location / {{ return 200 "{body}"; }} location /count {{ stub_status; }} }} }}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nginx:
    """One that answers 200 from memory."""

    def __init__(self, folder, core):
        self.plain, self.tls = free_port(), free_port()
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key", "-out", f"{folder}/cert"]
        subprocess.run(make, check=True, capture_output=True)
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(dir=folder, plain=self.plain, tls=self.tls, body="x" * 1024))
        self.process = subprocess.Popen(pinned(core, ["nginx", "-e", f"{folder}/error.log", "-c", str(config)]))
        deadline = time.monotonic() + 10
        while True:
            try:
                self.count()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def count(self):
        """Requests since its start, this one among them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.plain}/count", timeout=5) as answer:
            return int(answer.read().decode().splitlines()[2].split()[2])

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def pinned(core, command):
    return command if core is None else ["taskset", "-c", str(core), *command]


def run(core, command):
    done = subprocess.run(pinned(core, command), capture_output=True, text=True, timeout=120)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def to_us(word):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", word).groups()
    return float(number) * {"us": 1, "ms": 1000, "s": 1_000_000}[unit]


class Tools:
    """The generators, each with the same words."""

    def __init__(self, bench, nginx, core, seconds, folder):
        self.bench, self.nginx, self.core, self.seconds, self.folder = bench, nginx, core, seconds, folder

    def ours(self, way, rate=None):
        url = f"http://127.0.0.1:{self.nginx.plain}/" if way == "clear" else f"https://127.0.0.1:{self.nginx.tls}/"
        command = [self.bench, "load", url, "-c", "1" if rate else str(CONNECTIONS), "-s", str(self.seconds), "--warmup-seconds", "0.02",
                   "--insecure", "--out", self.folder, "--send-lag-max", "1000"]
        command += ["--http2"] if way == "http2" else []
        command += ["--rate", str(rate)] if rate else ["--closed"]
        run(self.core, command)
        cell = json.loads(Path(self.folder, "load.json").read_text())["cells"][0]
        assert cell["failed"] == 0, cell["complaints"]
        return cell["requests_per_s"]["median"], cell["p50_ms"]["median"] * 1000

    def wrk(self, way):
        url = f"http://127.0.0.1:{self.nginx.plain}/" if way == "clear" else f"https://127.0.0.1:{self.nginx.tls}/"
        said = run(self.core, ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{self.seconds}s", url])
        return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])

    def h2load(self, way, rate=None):
        url = f"https://127.0.0.1:{self.nginx.tls}/" if way == "http2" else f"http://127.0.0.1:{self.nginx.plain}/"
        command = ["h2load", "-t1", f"-c{1 if rate else CONNECTIONS}", f"-D{self.seconds}", url]
        command += ["-m8"] if way == "http2" else ["--h1"]
        command += [f"--rps={rate}"] if rate else []
        said = run(self.core, command)
        per_s = float(re.search(r"finished in .*?, ([\d.]+) req/s", said)[1])
        return per_s, to_us(re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", said)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True)
    parser.add_argument("--seconds", type=int, default=2)
    args = parser.parse_args()
    missing = [tool for tool in ("nginx", "wrk", "h2load", "openssl") if shutil.which(tool) is None]
    if missing:
        print(f"crosscheck: 0 passed, 1 failed: no {', '.join(missing)}")
        return 1
    cores = sorted(os.sched_getaffinity(0))
    first, second = (cores[0], cores[1]) if len(cores) > 1 and shutil.which("taskset") else (None, None)
    with tempfile.TemporaryDirectory() as folder:
        nginx = Nginx(folder, first)
        try:
            checks = measured(Tools(str(Path(args.bench).resolve()), nginx, second, args.seconds, folder), nginx)
        finally:
            nginx.stop()
    for good, words in checks:
        print(f"{'ok' if good else 'FAIL'}  {words}")
    failed = sum(not good for good, _ in checks)
    print(f"crosscheck: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


def measured(tools, nginx):
    """Rounds of each way, then what came of them."""
    ways = {"clear": ("HTTP/1.1", tools.wrk), "tls": ("HTTP/1.1 under TLS", tools.wrk), "http2": ("HTTP/2 under TLS", lambda way: tools.h2load(way)[0])}
    checks = []
    print("| closed loop | other tool /s | sluice-bench /s | nginx counted /s |\n|---|---:|---:|---:|")
    for way, (words, other) in ways.items():
        theirs, ours, counted = [], [], []
        for _ in range(ROUNDS):
            theirs.append(other(way))
            before = nginx.count()
            ours.append(tools.ours(way)[0])
            # The warm-up's hundredth is counted by nginx alone.
            counted.append((nginx.count() - before) / (tools.seconds + 0.02))
        print(f"| {words} | {statistics.median(theirs):.0f} | {statistics.median(ours):.0f} | {statistics.median(counted):.0f} |")
        ratio = max(mine / its for mine, its in zip(ours, theirs))
        checks.append((ratio >= SLOWER_MAX, f"{words}: {ratio:.2f} times as many requests as the other tool"))
        off = min(abs(mine / its - 1) for mine, its in zip(ours, counted))
        checks.append((off <= COUNTED_MAX, f"{words}: counts differ by {off * 100:.2f} % from those of nginx"))
    theirs, ours = [], []
    for _ in range(ROUNDS):
        theirs.append(tools.h2load("clear", RATE)[1])
        ours.append(tools.ours("clear", RATE)[1])
    print(f"\nAt {RATE}/s an answer takes {min(theirs):.0f} us (mean) by h2load, {min(ours):.0f} us (median) by sluice-bench.")
    off = abs(min(theirs) - min(ours))
    checks.append((off <= LATER_MAX_US, f"at {RATE}/s: times differ by {off:.0f} us"))
    return checks


if __name__ == "__main__":
    sys.exit(main())
