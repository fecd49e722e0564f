"""ACME as real clients speak it, unmodified: certbot and its library, against a running instance over TLS.

    acme.py --sluice PATH

certbot and acme come from the package index into the virtual environment of deploy.py. Where they cannot be had this
fails: nothing is passed over. The clients reach the vault through the edge, at the address that the directory names;
what an attacker would try is sent to the vault's own port, with the addresses of the directory. Prints a line a check,
then `acme: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from deploy import VENV, Fault, run
from instance import Instance, StartError, bare

PACKAGES = "certbot==5.8.0 acme==5.8.0 cryptography==50.0.2 requests==2.34.2"
# How long one client may take, seconds.
TALK_S = 60
HERE = Path(__file__).resolve().parent
LISTENERS = ("edge", "edge.tls", "control", "events", "vault", "calc")
DEMO = ("data_listen", "backtesting_listen", "trading_bot_listen")


def install():
    """The clients."""
    stamp = VENV / "acme.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGES):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.split())
        stamp.write_text(PACKAGES)


def free_ports(count):
    """Ports that nobody has; all are held until the last is found."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def configuration(folder):
    """A file in which every port is known beforehand: the issuer names one. Its path, and the challenges' port."""
    ports = free_ports(len(LISTENERS) + len(DEMO) + 1)
    at = dict(zip(LISTENERS, ports))
    text = "".join(f'[{name}]\nlisten = "127.0.0.1:{at[name]}"\n' for name in LISTENERS if name not in ("vault", "edge.tls"))
    text += f'[edge.tls]\nlisten = "127.0.0.1:{at["edge.tls"]}"\ncertificate = "auto"\n'
    text += f'[vault]\nlisten = "127.0.0.1:{at["vault"]}"\nissuer = "https://localhost:{at["edge.tls"]}"\n'
    text += "[demo]\n" + "".join(f'{name} = "127.0.0.1:{port}"\n' for name, port in zip(DEMO, ports[len(LISTENERS):]))
    names = '["localhost", "*.acme.invalid"]'
    text += f'[acme]\nnames = {{ bot = {names}, web = {names}, plain = {names} }}\n'
    text += f'networks = ["127.0.0.0/8"]\nhttp_port = {ports[-1]}\n'
    path = Path(folder) / "sluice.toml"
    path.write_text(text)
    return path, f"https://localhost:{at['edge.tls']}", ports[-1]


class Api:
    """The vault's own port, as the administrator."""

    def __init__(self, banner):
        self.base, self.token = banner["vault"], banner["token"]

    def ask(self, method, path, body=None, token=None):
        """Status and text."""
        headers = {"authorization": f"Bearer {token or self.token}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.base + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def bind(self, service, **more):
        """A new binding key."""
        status, text = self.ask("POST", "/acme/external-accounts", {"service_name": service, **more})
        if status != 201:
            raise Fault(f"no binding key: {status} {text}")
        return json.loads(text)


def certbot(folder, issuer, port, api):
    """certbot: registers, orders, renews, revokes."""
    eab = api.bind("web")
    home = Path(folder) / "certbot"
    roots = Path(folder) / "roots.pem"
    roots.write_text(api.ask("GET", "/ca/chain")[1])
    common = ["--config-dir", home / "config", "--work-dir", home / "work", "--logs-dir", home / "logs",
              "--server", f"{issuer}/acme/directory", "--non-interactive"]

    def act(*words):
        command = [str(word) for word in (VENV / "bin/certbot", *words, *common)]
        done = subprocess.run(command, env={**bare(), "REQUESTS_CA_BUNDLE": str(roots)}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TALK_S, check=False)
        if done.returncode:
            raise Fault(f"certbot {words[0]}: {(done.stdout + done.stderr)[-3000:]}")

    began = time.monotonic()
    act("certonly", "--standalone", "--http-01-port", port, "--http-01-address", "127.0.0.1", "-d", "localhost",
        "--agree-tos", "--email", "desk@example.com", "--no-eff-email", "--eab-kid", eab["kid"], "--eab-hmac-key",
        eab["hmac_key"])
    live = home / "config/live/localhost"
    serials = [verified(live, roots)]
    act("renew", "--force-renewal", "--no-random-sleep-on-renew")
    serials.append(verified(live, roots))
    if serials[0] == serials[1]:
        raise Fault("certbot renewed nothing")
    act("revoke", "--cert-path", live / "cert.pem", "--reason", "superseded", "--no-delete-after-revoke")
    revoked = revoked_serials(folder, api)
    if serials[1] not in revoked or serials[0] in revoked:
        raise Fault(f"of {serials} the last was revoked; the lists have {revoked}")
    return f"certbot registers, orders, renews and revokes in {time.monotonic() - began:.1f} s"


def openssl(*words):
    """What openssl says."""
    done = subprocess.run(["openssl", *map(str, words)], env=bare(), capture_output=True, text=True, timeout=10,
                          check=False)
    if done.returncode:
        raise Fault(f"openssl {words}: {done.stdout}{done.stderr}")
    return done.stdout


def verified(live, roots):
    """Holds a chain against the roots; its serial."""
    openssl("verify", "-CAfile", roots, "-untrusted", live / "chain.pem", "-verify_hostname", "localhost",
            "-purpose", "sslserver", live / "cert.pem")
    return openssl("x509", "-in", live / "cert.pem", "-noout", "-serial").strip().split("=")[1].upper()


def revoked_serials(folder, api):
    """Every serial of the revocation lists."""
    text = api.ask("GET", "/ca/crl")[1]
    found = []
    for number, part in enumerate(text.split("-----END X509 CRL-----\n")[:-1]):
        path = Path(folder) / f"{number}.crl"
        path.write_text(part + "-----END X509 CRL-----\n")
        lines = openssl("crl", "-in", path, "-noout", "-text").splitlines()
        found += [line.split(":", 1)[1].strip().upper() for line in lines if "Serial Number:" in line]
    return found


def library(folder, issuer, port, api):
    """The library's own calls, and an attacker's: tests/acme_client.py has them."""
    told = {"issuer": issuer, "vault": api.base, "port": port, "admin": api.token, "roots": str(Path(folder) / "roots.pem")}
    # -I: in this folder `acme` is this file and not the library.
    command = [VENV / "bin/python", "-I", HERE / "acme_client.py", json.dumps(told)]
    done = subprocess.run(command, env={**bare(), "REQUESTS_CA_BUNDLE": told["roots"]}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=TALK_S, check=False)
    print(done.stdout, end="")
    if done.returncode:
        raise Fault(f"the library: {done.stderr[-3000:]}")
    return done.stdout.count("ok ")


def main():
    """Runs both clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice", required=True, type=Path)
    options = parser.parse_args()
    os.umask(0o077)
    passed = failed = 0
    try:
        install()
        with tempfile.TemporaryDirectory(prefix="sluice-acme-") as folder:
            conf, issuer, port = configuration(folder)
            with Instance(options.sluice, arguments=("--conf", str(conf)), offset="0") as instance:
                api = Api(instance.banner)
                for check in (certbot, library):
                    try:
                        done = check(folder, issuer, port, api)
                        if isinstance(done, str):
                            print(f"ok {done}")
                        passed += done if isinstance(done, int) else 1
                    except (Fault, subprocess.TimeoutExpired) as fault:
                        failed += 1
                        print(f"FAILED {fault}")
    except (Fault, StartError) as fault:
        failed += 1
        print(f"FAILED {fault}")
    print(f"acme: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
