"""Does what the README says and compares what comes back.

    readme.py --sluice PATH

- A ```sh block that begins with `# try` is run by `sh -e` at the top of the repository, against an instance of
  its own: the README's ports and its `.sluice` become that instance's. It must end with 0.
- A ```json block right after it shows the answer: members named there must have those values. `…` stands for
  anything: as a value, inside a string, or as the last element of a list for the rest of it.
- A ```toml block is a file for `services.d/`; `sluice check --strict` must find nothing in it.
- Every `METHOD /path` of a table row is asked on each port of that row with the administrator's token. 404 and 405
  mean that it is not there, 5xx that it does not work; where the path has a {placeholder}, a 404 may also say that
  there is no such thing.
- Every link into the repository leads somewhere, and `./dev` knows each command named.

Prints a line a check, then `readme: N passed, N failed`; exits 0 or 1.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from instance import ROOT, Instance, StartError, bare

PORTS = {"8000": "edge", "8012": "control", "8011": "events", "8009": "vault", "8013": "calc"}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"`(GET|POST|PUT|DELETE) (/[^` ]*)`")
# What stands in for a {placeholder}; nothing has this name.
NOBODY = "nobody"
# The words with which every process says that it has no such path.
NO_PATH = "there is nothing at this path"
LIMIT_S = 30


class Fault(Exception):
    """Something is not as the README says."""


class Readme:
    """The README and what it is compared with."""

    def __init__(self, text, program, banner):
        self.text, self.program, self.banner = text, program, banner

    def checks(self):
        """Every check with its name."""
        blocks = BLOCK.findall(self.text)
        for (kind, body), (next_kind, next_body) in zip(blocks, [*blocks[1:], ("", "")]):
            if kind == "sh" and body.startswith("# try"):
                shown = next_body if next_kind == "json" else None
                yield body.splitlines()[0].removeprefix("# "), lambda body=body, shown=shown: self.example(body, shown)
            elif kind == "toml":
                yield "a service file is valid", lambda body=body: self.service(body)
        for port, method, path in self.calls():
            name = f"{method} {path} on {PORTS.get(port, port)}"
            yield name, lambda port=port, method=method, path=path: self.endpoint(port, method, path)
        for target in re.findall(r"\]\(([^)#:]+)\)", self.text):
            yield f"the link to {target}", lambda target=target: there(target)
        for word in sorted(set(re.findall(r"\./dev (\w+)", self.text))):
            yield f"./dev {word}", lambda word=word: known(word)

    def calls(self):
        """Port, method and path of every call in a table: the ports stand in a row's first column."""
        for row in re.findall(r"^\|(.*)\|$", self.text, re.MULTILINE):
            ports, _, rest = row.partition("|")
            for method, path in CALL.findall(rest):
                yield from ((port, method, path) for port in re.findall(r"\d+", ports))

    def example(self, script, shown):
        for port, name in PORTS.items():
            script = script.replace(f"http://127.0.0.1:{port}", self.banner[name])
        script = re.sub(r"(?<![\w/.])\.sluice\b", self.banner["data_dir"], script)
        said = run("sh", "-e", "-c", script)
        if shown is not None:
            try:
                compare(json.loads(shown), json.loads(said), "$")
            except json.JSONDecodeError as error:
                raise Fault(f"{error} in {said[:400]!r}") from error

    def service(self, text):
        with tempfile.TemporaryDirectory(prefix="sluice-readme-") as folder:
            main, beside = Path(folder) / "sluice.toml", Path(folder) / "services.d"
            beside.mkdir()
            main.write_text("")
            (beside / "service.toml").write_text(text)
            run(self.program, "check", "--strict", str(main))

    def endpoint(self, port, method, path):
        filled = re.sub(r"\{\w+\}", NOBODY, path)
        connection = http.client.HTTPConnection(urlsplit(self.banner[PORTS[port]]).netloc, timeout=LIMIT_S)
        try:
            connection.request(method, filled, headers={"authorization": f"Bearer {self.banner['token']}"})
            # The head is enough, and all that a stream has to say at first.
            answer = connection.getresponse()
            if answer.status not in (404, 405) and answer.status < 500:
                return
            problem = json.loads(answer.read())
            no_such_thing = answer.status == 404 and problem["code"] != "no_route" and problem["detail"] != NO_PATH
            if filled == path or not no_such_thing:
                raise Fault(f"{answer.status} {problem}")
        finally:
            connection.close()


def run(*command):
    """Runs a command at the top of the repository; answers its output."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=bare(), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise Fault(f"no end within {LIMIT_S} s") from error
    if done.returncode:
        raise Fault(f"ended with {done.returncode}\n{done.stdout[:2000]}{done.stderr[:2000]}")
    return done.stdout


def compare(shown, given, place):
    """Whether an answer holds what is shown of it; `place` names where in it we are."""
    if shown == "…":
        return
    if isinstance(shown, dict) and isinstance(given, dict):
        for name, value in shown.items():
            if name not in given:
                raise Fault(f"{place} has no member {name!r}, but {sorted(given)}")
            compare(value, given[name], f"{place}.{name}")
    elif isinstance(shown, list) and isinstance(given, list):
        whole = not shown or shown[-1] != "…"
        wanted = shown if whole else shown[:-1]
        if len(given) < len(wanted) or (whole and len(given) != len(wanted)):
            raise Fault(f"{place} has {len(given)} elements")
        for at, (value, other) in enumerate(zip(wanted, given)):
            compare(value, other, f"{place}[{at}]")
    elif isinstance(shown, str) and isinstance(given, str) and "…" in shown:
        if not re.fullmatch(".*".join(map(re.escape, shown.split("…"))), given, re.DOTALL):
            raise Fault(f"{place} is {given!r}, shown is {shown!r}")
    elif shown != given or isinstance(shown, bool) != isinstance(given, bool):
        raise Fault(f"{place} is {given!r}, shown is {shown!r}")


def there(target):
    if not (ROOT / target).exists():
        raise Fault("leads nowhere")


def known(word):
    if f"\n{word})" not in (ROOT / "dev").read_text():
        raise Fault("./dev does not know it")


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sluice", required=True, metavar="PATH", help="the binary")
    flags.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE", help="another text")
    given = flags.parse_args()
    passed = failed = 0
    try:
        with Instance(given.sluice) as instance:
            for name, check in Readme(given.readme.read_text(), instance.program, instance.banner).checks():
                try:
                    check()
                except (Fault, OSError, http.client.HTTPException, ValueError, KeyError) as fault:
                    failed += 1
                    print(f"FAILED {name}: {type(fault).__name__}: {fault}")
                else:
                    passed += 1
                    print(f"ok     {name}")
    except StartError as error:
        failed += 1
        print(f"FAILED the instance starts: {error}")
    print(f"readme: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
