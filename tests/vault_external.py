"""The part of vault.py where a real OpenBao keeps Sluice's secrets (ENABLE_VAULT=true): what stands there, what
callers are told, that the token is renewed and lies nowhere, and what becomes of callers while it is sealed or gone.
"""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

from deploy import Fault

# What Sluice's token may do at the external vault: as the README says it.
POLICY = """
path "secret/data/*" { capabilities = ["create", "read", "update", "patch", "delete"] }
path "secret/metadata/*" { capabilities = ["create", "read", "update", "patch", "delete", "list"] }
path "secret/delete/*" { capabilities = ["create", "update"] }
path "secret/undelete/*" { capabilities = ["create", "update"] }
path "secret/destroy/*" { capabilities = ["create", "update"] }
path "secret/subkeys/*" { capabilities = ["read"] }
path "secret/config" { capabilities = ["create", "read", "update"] }
"""
# Life of that token, seconds: it ends during the checks unless it is renewed.
LIFE_S = 5
CALL_S = 60
CANARY = "canary-of-an-external-secret"


def admit(bao, call):
    """A token for Sluice at the external vault."""
    status, told = call(bao.url, "root", "PUT", "sys/policies/acl/sluice", {"policy": POLICY})
    if status != 204:
        raise Fault(f"OpenBao does not take the policy: {status} {told}")
    asked = {"policies": ["sluice"], "ttl": f"{LIFE_S}s", "period": f"{LIFE_S}s"}
    return call(bao.url, "root", "POST", "auth/token/create", asked)[1]["auth"]["client_token"]


def ask(url, token, method, path, body=None):
    """One call of the older kind; status, JSON and Retry-After."""
    data = None if body is None else json.dumps(body).encode()
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}{path}", data, fields, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=CALL_S) as answer:
            kind, text = answer.headers["content-type"] or "", answer.read()
            return answer.status, json.loads(text) if "json" in kind else text, None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null"), error.headers["retry-after"]


def same(got, expected, what):
    if got != expected:
        raise Fault(f"{what}: {got}, not {expected}")


def seed_calls(url, token, bao, call):
    """The platforms' own calls, and what they leave at OpenBao."""
    ran = 0

    def to(method, path, body=None, status=200):
        nonlocal ran
        ran += 1
        got, told, _ = ask(url, token, method, path, body)
        same(got, status, f"{method} {path} {told}")
        return told

    def there(path):
        status, told = call(bao.url, "root", "GET", path)
        return told["data"] if status == 200 else None

    to("GET", "/secrets/services/desk/db", status=404)
    value = {"password": CANARY, "n": 1.5, "nested": {"a": [1, None]}}
    same(to("PUT", "/secrets/services/desk/db", {"data": value, "cas": 0})["version"], 1, "first version")
    same(there("secret/data/services/desk/db")["data"], value, "the value at OpenBao")
    to("PUT", "/secrets/services/desk/db", {"data": {}, "cas": 0}, status=409)
    stored = to("POST", "/security/secrets/store", {"path": "services/desk/db", "data": {"password": "two"}})
    same((stored["status"], stored["version"]), ("success", 2), "older store")
    same(to("GET", "/security/secrets/retrieve?path=services/desk/db")["data"], {"password": "two"}, "older retrieve")
    same(to("GET", "/secrets/services/desk/db?version=1")["data"], value, "version 1")
    to("GET", "/secrets/services/desk/db?version=9", status=404)
    same(to("DELETE", "/secrets/services/desk/db")["versions"], [2], "deleted")
    to("GET", "/secrets/services/desk/db", status=404)
    same(to("POST", "/secrets/services/desk/db?undelete=2")["versions"], [2], "undeleted")
    same(to("GET", "/secrets/services/desk/db")["version"], 2, "it is back")
    same(to("POST", "/secrets/services/desk/db?destroy=1")["versions"], [1], "destroyed")
    to("GET", "/secrets/services/desk/db?version=1", status=404)
    to("POST", "/secrets/services/desk/db?undelete=1", status=409)
    history = to("GET", "/secrets/services/desk/db?metadata")
    same((history["current_version"], history["versions"]["1"]["destroyed"]), (2, True), "history")
    same(there("secret/metadata/services/desk/db")["versions"]["1"]["destroyed"], True, "destroyed at OpenBao")
    to("PUT", "/secrets/services/desk/other", {"a": 1})
    same(to("GET", "/secrets/services/desk?list=true")["keys"], ["db", "other"], "list")
    same(to("GET", "/secrets/services?list=true")["keys"], ["desk/"], "folder")
    to("GET", "/secrets/services/none?list=true", status=404)
    bot = to("POST", "/security/tokens/generate", {"service_name": "bot", "permissions": ["read", "write"]})["token"]
    for method, path in (("GET", "/secrets/services/desk/db"), ("PUT", "/secrets/services/desk/db")):
        same(ask(url, bot, method, path, {} if method == "PUT" else None)[0], 403, f"{method} of a stranger")
    same(ask(url, bot, "PUT", "/secrets/services/bot/db", {"a": 1})[1]["version"], 1, "its own part")
    return f"{ran} calls of the platforms kept by OpenBao"


def renewed(instance, began):
    """The token outlives its life, and lies with its values nowhere in state or log."""
    url, token = instance.banner["vault"], instance.banner["token"]
    calls = 0
    while time.monotonic() < began + 2 * LIFE_S or not calls:
        status, told, _ = ask(url, token, "GET", "/secrets/services/desk/db")
        same(status, 200, f"a read {time.monotonic() - began:.1f} s after the token was made: {told}")
        calls += 1
    health = ask(url, token, "GET", "/health")[1]["components"]["external"]
    same(health["status"], "healthy", f"health {health}")
    needles = (instance.environment["VAULT_TOKEN"].encode(), CANARY.encode())
    files = [path for path in Path(instance.folder.name).rglob("*") if path.is_file()]
    for path in files:
        if any(needle in path.read_bytes() for needle in needles):
            raise Fault(f"{path} holds the token or a value of the external vault")
    return f"its token renewed over two lives, in none of {len(files)} files"


def away(instance, bao, call):
    """Sealed, then gone: 503 with Retry-After, and the rest goes on."""
    url, token = instance.banner["vault"], instance.banner["token"]

    def refused(what):
        for method, path, body in (("GET", "/secrets/services/desk/db", None), ("PUT", "/secrets/x", {"a": 1})):
            status, told, retry = ask(url, token, method, path, body)
            same((status, told.get("code"), bool(retry)), (503, "vault_unavailable", True), f"{method} while {what}")
        status, told = call(url, token, "GET", "secret/data/services/desk/db")
        same((status, list(told)), (503, ["errors"]), f"/v1/ while {what}")
        same(ask(url, token, "GET", "/readyz")[0], 200, f"ready while {what}")
        same(ask(url, token, "POST", "/tokens/bot", {})[0], 200, f"a token while {what}")

    call(bao.url, "root", "PUT", "sys/seal")
    refused("sealed")
    bao.process.kill()
    bao.process.wait()
    refused("gone")
    return "while it is sealed or gone callers are told when to come back"
