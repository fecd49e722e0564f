"""Reads every exposition of a running Sluice as Prometheus' own client does.

    metrics.py --sluice PATH

The client comes from the package index into the virtual environment of deploy.py. Families of the event worker are
compared with the catalogue: what operators are promised is there from the first second, before anything happened.
Prints a line a check, then `metrics: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
import re
import sys
import urllib.request

from deploy import CATALOGUE, VENV, Fault, run
from instance import Instance, StartError

CLIENT = "prometheus-client==0.23.1"
# Reads a text from standard input, answers each family as {name: [kind, samples]}.
PARSE = """
import json, sys
from prometheus_client.parser import text_fd_to_metric_families
found = {}
for family in text_fd_to_metric_families(sys.stdin):
    names = sorted({sample.name for sample in family.samples})
    assert family.name not in found, f"{family.name} is there twice"
    assert family.documentation, f"{family.name} has no help"
    assert family.type != "unknown", f"{family.name} has no type"
    found[family.name] = [family.type, names]
print(json.dumps(found))
"""


def install():
    stamp = VENV / "prometheus-client.release"
    if stamp.is_file() and stamp.read_text() == CLIENT:
        return
    if not (VENV / "bin/pip").exists():
        run(sys.executable, "-m", "venv", "--clear", VENV)
    run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", CLIENT)
    stamp.write_text(CLIENT)


def parse(base):
    """The families of a port, as the client understands them."""
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    file = VENV / "exposition.txt"
    file.write_text(text)
    families = json.loads(run(VENV / "bin/python", "-c", PARSE.replace("sys.stdin", f"open({str(file)!r})")))
    if not families:
        raise Fault(f"{base} has no metric")
    return families


def promised():
    """The event worker's part of the catalogue without labels: the series of others come with what they count."""
    part = CATALOGUE.read_text().split("// Events.")[1].split("// Vault.")[0]
    return re.findall(r'^\s+[A-Z]\w+ "(\w+)" \[\]', part, re.MULTILINE)


def events(banner):
    """One group, so that its series are there; then every family of the catalogue is."""
    base, token = banner["events"], banner["token"]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    asked = urllib.request.Request(f"{base}/groups/metrics_check", b'{"start":"earliest"}', headers, method="PUT")
    urllib.request.urlopen(asked, timeout=10).close()
    families = parse(base)
    # The client calls a counter without its suffix.
    known = families.keys() | {f"{name}_total" for name, (kind, _) in families.items() if kind == "counter"}
    missing = [name for name in promised() if name not in known]
    if missing:
        raise Fault(f"the event worker does not show {missing}")
    wrong = [name for name in ("sluice_events_publish_seconds", "sluice_events_batch_size")
             if families.get(name, [None])[0] != "histogram"]
    if wrong:
        raise Fault(f"no histograms: {wrong}")


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sluice", required=True, metavar="PATH", help="the binary")
    given, passed, failed = flags.parse_args(), 0, 0
    try:
        install()
        with Instance(given.sluice) as instance:
            banner = instance.banner
            checks = {f"the client reads the {port}": lambda port=port: parse(banner[port])
                      for port in ("edge", "control", "events", "vault", "calc")}
            checks["the event worker shows what the catalogue promises"] = lambda: events(banner)
            for name, check in checks.items():
                try:
                    check()
                except (Fault, OSError) as fault:
                    failed += 1
                    print(f"FAIL {name}: {fault}")
                else:
                    passed += 1
                    print(f"ok   {name}")
    except (Fault, StartError) as fault:
        failed += 1
        print(f"FAIL the instance starts: {fault}")
    print(f"metrics: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
