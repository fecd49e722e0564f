"""What a subscriber costs that waits: at most 2 KiB of the event worker's memory, by SSE and by WebSocket.

    idle.py --sluice PATH

Measured is the slope between two counts, not a total. Before the first count as many subscribers come and go, so that
threads, tables and buffers of a start are there; the second count adds three times as many, for which no page is left
over. Memory is counted in pages of 4 KiB (huge pages of 2 MiB, which the allocator asks for, would be 1.4 KiB each of
so many subscribers). Some 1,550 and 1,700 bytes are what is seen, of a debug build too; the rest is the margin:
500 KB that anything else in the worker may take meanwhile. Prints a line a transport, then `idle: N passed, N failed`; exits 0 or 1.
"""

import argparse
import ctypes
import resource
import socket
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from deploy import Fault
from instance import Instance, StartError

BYTES_MAX = 2048
# Of each transport; together they are below the worker's own bound of 4,096.
FIRST, MORE = 500, 1500
# An answer, or the worker's notice of closed connections, may take so long, seconds.
WAIT_S = 10
# Nobody publishes this type: nothing is sent to them.
NOTHING = "never_published"
PR_SET_THP_DISABLE = 41


class Worker:
    """The event worker of a running instance."""

    def __init__(self, banner):
        self.url = banner["events"]
        self.pid = banner["pids"]["events"]
        self.token = banner["token"]

    def bytes(self):
        """Memory of its own, files not counted."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) * 1024
        raise Fault("the system does not tell the worker's memory")

    def subscribers(self):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=WAIT_S) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("event_service_active_subscribers "):
                    return int(float(line.split()[1]))
        raise Fault("the worker does not tell its subscribers")

    def until_subscribers(self, count):
        end = time.monotonic() + WAIT_S
        # Two are there anyway: the edge listens for kill switches, the calculation worker for candles that form.
        while not count <= (now := self.subscribers()) <= count + 2:
            if time.monotonic() > end:
                raise Fault(f"{now} subscribers, not {count}")

    def ask(self, target, *headers):
        address = urlsplit(self.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=WAIT_S)
        lines = [f"GET {target} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Bearer {self.token}", *headers]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection

    def by_sse(self):
        connection = self.ask(f"/events/stream?event_type={NOTHING}")
        until(connection, b": stream open\n\n")
        return connection

    def by_websocket(self):
        connection = self.ask("/events/ws", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        until(connection, b"\r\n\r\n")
        words = b'{"op":"subscribe","sub":"a","event_type":"%s"}' % NOTHING.encode()
        # One frame of text, its mask all zeros.
        connection.sendall(bytes([0x81, 0x80 | len(words), 0, 0, 0, 0]) + words)
        until(connection, b"subscribed")
        return connection


def until(connection, words):
    """Reads on until the words are there."""
    seen = b""
    while words not in seen:
        piece = connection.recv(4096)
        if not piece:
            raise Fault(f"the worker closed the connection behind {seen!r}")
        seen += piece


def slope(worker, kind, subscribe, kept):
    """Bytes of each subscriber that comes on top of the first ones, which stay in `kept`."""
    before = len(kept)
    for connection in [subscribe() for _ in range(FIRST)]:
        connection.close()
    worker.until_subscribers(before)
    kept += [subscribe() for _ in range(FIRST)]
    worker.until_subscribers(before + FIRST)
    first = worker.bytes()
    kept += [subscribe() for _ in range(MORE)]
    worker.until_subscribers(before + FIRST + MORE)
    each = (worker.bytes() - first) / MORE
    print(f"idle: {kind}: {each:.0f} bytes a subscriber, at most {BYTES_MAX}")
    # None at all would be a measurement of nothing.
    return 0 < each <= BYTES_MAX


def open_files():
    """Both ends of every connection need one; what is started has this script's bound."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = 2 * (FIRST + MORE) + 1000
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Fault(f"{needed} open files are needed, this user may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice", required=True)
    arguments = parser.parse_args()
    passed, failed, kept = 0, 0, []
    try:
        open_files()
        # Inherited by what is started.
        if ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
            raise Fault("huge pages cannot be switched off for a process")
        with Instance(arguments.sluice, arguments=["--no-demo"]) as instance:
            worker = Worker(instance.banner)
            for kind, subscribe in (("SSE", worker.by_sse), ("WebSocket", worker.by_websocket)):
                if slope(worker, kind, subscribe, kept):
                    passed += 1
                else:
                    failed += 1
    except (Fault, StartError, OSError) as error:
        print(f"idle: {error}")
        failed += 1
    print(f"idle: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
