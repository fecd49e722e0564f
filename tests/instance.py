"""A running `sluice up --dev` for the scripts of the gate: free ports, its own state, gone when the script ends."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# From the start to the banner, seconds; the product's own bound is 3 s on a calm machine.
READY_S = 30
# `sluice up` is gone 10 s after SIGTERM.
END_S = 12


class StartError(Exception):
    """The instance printed no banner; the text is its log."""


class Instance:
    """Use it with `with`: `banner` holds the addresses, the token and the data directory."""

    def __init__(self, program, environment=None, arguments=(), offset="auto"):
        self.program = str(Path(program).resolve())
        self.environment = environment or {}
        self.arguments = ("--port-offset", offset, *arguments)

    def __enter__(self):
        exit_on_signals()
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-gate-")
        self.log = Path(self.folder.name) / "log"
        command = [self.program, "up", "--dev", "--json", "--data-dir", str(Path(self.folder.name) / "data"),
                   *self.arguments]
        # A bare environment: what a developer has set must not decide. setpriv ends the instance when this
        # script is killed without a word; the roles end with their supervisor.
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *command], cwd=ROOT, env={**bare(), **self.environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        try:
            self.banner = json.loads(self.first_line())
        except (StartError, json.JSONDecodeError) as error:
            words = self.log.read_text(errors="replace")[-4000:]
            self.__exit__()
            raise StartError(f"{error}; the log says:\n{words}") from None
        return self

    def first_line(self):
        waiting = selectors.DefaultSelector()
        waiting.register(self.process.stdout, selectors.EVENT_READ)
        # The banner is one write: when something can be read, it is all there.
        if not waiting.select(READY_S):
            raise StartError(f"no banner within {READY_S} s")
        return self.process.stdout.readline() or "no banner"

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def bare():
    """The environment of everything that is started: no more than programs need to be found."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}


def exit_on_signals():
    """SIGTERM and SIGHUP unwind like an exception, so that `with` ends what it began."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
