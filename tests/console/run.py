"""Starts Sluice with its demo and looks at its dashboard as a person would.

    run.py --sluice PATH [--out DIR]

Everything is over within 120 s; the last line is check.py's `console: N passed, N failed`. Exits 0 or 1.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from instance import ROOT, Instance, StartError, bare  # noqa: E402

# For start, checks and end together, seconds.
LIMIT_S = 120
# Of them, what the browser and the instance may take to end.
END_S = 20


def look(banner, out, deadline):
    """Runs check.py; answers its exit code. Interrupted at the deadline, so that it ends its browser."""
    command = [sys.executable, str(HERE / "check.py"), "--url", f"{banner['control']}/dashboard",
               "--token", banner["token"], "--out", str(out)]
    # A gate that runs in the background ignores SIGINT, and children inherit that.
    polite = ["env", "--default-signal=INT", "setpriv", "--pdeathsig", "INT", "--"]
    check = subprocess.Popen([*polite, *command], env=bare(), stdin=subprocess.DEVNULL)
    try:
        return check.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        print(f"FAILED the checks did not end within {LIMIT_S} s")
        return 1
    finally:
        end(check)


def group(banner):
    """A consumer group that nobody serves: something to be behind."""
    asked = urllib.request.Request(f"{banner['events']}/groups/console_check", method="PUT",
                                   data=b'{"start":"earliest"}', headers={"content-type": "application/json",
                                                                         "authorization": f"Bearer {banner['token']}"})
    urllib.request.urlopen(asked, timeout=10).close()


def end(check):
    if check.poll() is None:
        check.send_signal(signal.SIGINT)
        try:
            check.wait(END_S / 2)
        except subprocess.TimeoutExpired:
            check.kill()
            check.wait()


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sluice", required=True, metavar="PATH", help="the binary")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    flags.add_argument("--out", type=Path, default=target / "gate/console", metavar="DIR", help="where pictures go")
    given = flags.parse_args()
    deadline = time.monotonic() + LIMIT_S - END_S
    try:
        with Instance(given.sluice) as instance:
            group(instance.banner)
            code = look(instance.banner, given.out, deadline)
    except StartError as error:
        print(f"FAILED the instance starts: {error}")
        print("console: 0 passed, 1 failed")
        return 1
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
