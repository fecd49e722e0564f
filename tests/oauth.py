"""OAuth 2.0 and SPIFFE as real clients speak them: Authlib and spiffe (py-spiffe), unmodified, against a running instance,
directly and through the edge.

    oauth.py --sluice PATH

Both come from the package index into the virtual environment of deploy.py. Where they cannot be had this fails:
nothing is passed over. Prints a line a check, then `oauth: N passed, N failed`; exits 0 or 1.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from deploy import VENV, Fault, run
from instance import Instance, StartError, bare

PACKAGES = "authlib==1.9.9 joserfc==1.8.0 requests==2.34.2 httpx==0.28.1 spiffe==0.3.2"
# How long one client's conversation may take, seconds.
TALK_S = 60

# How often a revocation is timed, and how long 99 of 100 may take to reach the edge, seconds.
REVOCATIONS, LEARNT_S = 100, 0.25

# What a client does, with the base address, the administrator's token and a name of its own.
CLIENT = r'''
import sys, warnings
warnings.simplefilter("ignore")
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

base, admin, name = sys.argv[1:]
headers = {"authorization": "Bearer " + admin}

def registered(client_id, scope, **more):
    wish = {"client_id": client_id, "scope": scope, **more}
    answer = requests.post(base + "/oauth2/clients", json=wish, headers=headers, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json().get("client_secret")

def check(what):
    print("ok", what)

found = requests.get(base + "/.well-known/oauth-authorization-server", timeout=10).json()
metadata = AuthorizationServerMetadata(found)
# What the standard lets a server without an authorization endpoint leave out is left out.
metadata.validate_issuer(); metadata.validate_token_endpoint(); metadata.validate_jwks_uri()
metadata.validate_token_endpoint_auth_methods_supported(); metadata.validate_grant_types_supported()
metadata.validate_token_endpoint_auth_signing_alg_values_supported(); metadata.validate_scopes_supported()
metadata.validate_revocation_endpoint(); metadata.validate_introspection_endpoint()
here = {key: base + found[key].removeprefix(found["issuer"]) for key in
        ("token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri")}
check("metadata is valid to Authlib")

secret = registered(name, "read trade")
keys = KeySet.import_key_set(requests.get(here["jwks_uri"], timeout=10).json())
for method in ("client_secret_basic", "client_secret_post"):
    session = OAuth2Session(name, secret, token_endpoint_auth_method=method, scope="read")
    token = session.fetch_token(here["token_endpoint"])
    assert token["token_type"] == "Bearer" and token["scope"] == "read", token
    decoded = jwt.decode(token["access_token"], keys, algorithms=["ES256"])
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": found["issuer"]}, aud={"essential": True, "value": "sluice"},
        sub={"essential": True, "value": name}, client_id={"essential": True, "value": name},
        jti={"essential": True}, exp={"essential": True}, iat={"essential": True}).validate(decoded.claims)
    assert decoded.header["typ"] == "at+jwt" and decoded.claims["scope"] == "read", decoded.claims
    allowed = session.get(base + "/tokens", timeout=10)
    assert allowed.status_code == 200, allowed.text
    known = session.introspect_token(here["introspection_endpoint"], token=token["access_token"]).json()
    assert known["active"] and known["client_id"] == name, known
    assert session.revoke_token(here["revocation_endpoint"], token=token["access_token"]).status_code == 200
    known = session.introspect_token(here["introspection_endpoint"], token=token["access_token"]).json()
    assert known == {"active": False}, known
    check(f"{method}: fetch, decode by JWKS, use, introspect, revoke")

with OAuth2Client(name, secret, scope="read trade") as client:
    token = client.fetch_token(here["token_endpoint"])
    assert token["scope"] == "read trade", token
    narrow = client.fetch_token(
        here["token_endpoint"], grant_type="urn:ietf:params:oauth:grant-type:token-exchange", scope="read",
        subject_token=token["access_token"], subject_token_type="urn:ietf:params:oauth:token-type:access_token")
    assert narrow["scope"] == "read" and narrow["issued_token_type"].endswith(":access_token"), narrow
check("httpx client: fetch, exchange for less")

for body, wrong in (({"scope": "admin"}, "invalid_scope"), ({"grant_type": "password"}, "unsupported_grant_type")):
    try:
        OAuth2Session(name, secret).fetch_token(here["token_endpoint"], **body)
        raise SystemExit(f"{body} was granted")
    except OAuthError as error:
        assert error.error == wrong, error
try:
    OAuth2Session(name, "wrong").fetch_token(here["token_endpoint"])
    raise SystemExit("a wrong secret was taken")
except OAuthError as error:
    assert error.error == "invalid_client", error
check("refusals reach the client as OAuth errors")

key = ECKey.generate_key("P-256", private=True)
public = {part: key.as_dict(private=False)[part] for part in ("kty", "crv", "x", "y")}
registered(name + "-key", "read", token_endpoint_auth_method="private_key_jwt", jwks={"keys": [public]})
session = OAuth2Session(name + "-key", key, token_endpoint_auth_method="private_key_jwt")
session.register_client_auth_method(PrivateKeyJWT(found["token_endpoint"], alg="ES256"))
for _ in range(2):
    assert session.fetch_token(here["token_endpoint"])["scope"] == "read"
check("private_key_jwt: an assertion a request")
'''

# What a workload does that has the trust bundle: SVIDs of both kinds are parsed and verified by it alone.
WORKLOAD = r'''
import base64, json, sys
import requests
from cryptography import x509
from cryptography.x509 import verification
from spiffe.bundle.jwt_bundle.jwt_bundle import JwtBundle
from spiffe.bundle.x509_bundle.x509_bundle import X509Bundle
from spiffe.spiffe_id.spiffe_id import TrustDomain
from spiffe.svid.errors import JwtSvidError
from spiffe.svid.jwt_svid import JwtSvid
from spiffe.svid.x509_svid import X509Svid

base, admin, name = sys.argv[1:]
headers = {"authorization": "Bearer " + admin}
domain = TrustDomain("sluice.internal")
identity = f"spiffe://sluice.internal/service/{name}"

def check(what):
    print("ok", what)

def ask(path, body):
    answer = requests.post(base + path, json=body, headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()

bundle = requests.get(base + "/ca/bundle", timeout=10).json()
assert bundle["spiffe_sequence"] >= 1 and bundle["spiffe_refresh_hint"] >= 1, bundle
of = {use: [key for key in bundle["keys"] if key["use"] == use] for use in ("jwt-svid", "x509-svid")}
assert len(of["jwt-svid"]) + len(of["x509-svid"]) == len(bundle["keys"]), bundle
jwts = JwtBundle.parse(domain, json.dumps({"keys": of["jwt-svid"]}).encode())
assert len(jwts.jwt_authorities) == 2, "the next key is published early"
told = ask(f"/credentials/{name}/jwt-svid", {"audience": ["data", "calc"]})
for audience in ({"data"}, {"calc"}):
    svid = JwtSvid.parse_and_validate(told["svid"], jwts, audience)
    assert str(svid.spiffe_id) == identity and svid.audience == {"data", "calc"}, svid
JwtSvid.parse_insecure(told["svid"], {"data"})
head, body, signature = told["svid"].split(".")
token = ask("/tokens/" + name, {"audience": "data"})["token"]
claims = json.loads(base64.urlsafe_b64decode(body + "=="))
forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": identity + "x"}).encode()).decode().rstrip("=")
for wrong, audience in ((told["svid"], {"elsewhere"}), (f"{head}.{forged}.{signature}", {"data"}), (token, {"data"})):
    try:
        JwtSvid.parse_and_validate(wrong, jwts, audience)
        raise SystemExit(f"taken: {wrong}")
    except JwtSvidError:
        pass
check("JWT-SVID: parsed and verified by the bundle, for its audiences alone")

roots = X509Bundle.parse_raw(domain, base64.b64decode(of["x509-svid"][0]["x5c"][0]))
issued = ask("/credentials/" + name, {})
svid = X509Svid.parse(issued["certificate"].encode(), issued["private_key"].encode())
assert str(svid.spiffe_id) == identity, svid.spiffe_id
store = verification.Store(list(roots.x509_authorities))
names = verification.PolicyBuilder().store(store).build_client_verifier().verify(svid.leaf, svid.cert_chain[1:])
assert identity in [name.value for name in names.subjects], names.subjects
check("X.509-SVID: parsed, and its chain verified to the bundle")

for method, path in (("GET", "/tokens"), ("POST", "/tokens/refresh"), ("GET", "/events?limit=1")):
    if path.startswith("/events") and "edge" not in name:
        continue
    answer = requests.request(method, base + path, headers={"authorization": "Bearer " + told["svid"]}, timeout=10)
    assert answer.status_code == 401, (path, answer.status_code, answer.text)
assert requests.post(base + "/tokens/validate", json={"token": told["svid"]}, timeout=10).json()["valid"] is False
check("a JWT-SVID is no access token")
'''


def install():
    """The clients' libraries."""
    stamp = VENV / "oauth.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGES):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES.split())
        stamp.write_text(PACKAGES)


def talk(client, base, token, name):
    """One client's conversation; how many checks it passed."""
    command = [VENV / "bin/python", "-c", client, base, token, name]
    done = subprocess.run(command, env=bare(), capture_output=True, text=True, timeout=TALK_S, check=False)
    for line in done.stdout.splitlines():
        print(f"{line} ({name})")
    if done.returncode:
        raise Fault(f"{name}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.count("ok ")


class Line:
    """A connection that stays open, as the clients of a service have it."""

    def __init__(self, base, source="127.0.0.1"):
        self.line = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10, source_address=(source, 0))

    def ask(self, method, path, token, body=None):
        """The status and the JSON of an answer."""
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.line.request(method, path, body and json.dumps(body), headers)
        answer = self.line.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None


def revocations(banner):
    """How long a revocation takes, from the vault's answer on, until the edge refuses the token; the 99th of 100."""
    vault, admin = Line(banner["vault"]), banner["token"]
    path, took = "/events?limit=1", []
    for number in range(REVOCATIONS):
        wish = {"permissions": ["events:read"], "ttl": 600}
        status, made = vault.ask("POST", f"/tokens/hasty-{number}", admin, wish)
        if status != 200:
            raise Fault(f"no token: {status} {made}")
        # The edge slows an address down that shows bad tokens: each has its own here.
        edge = Line(banner["edge"], f"127.0.1.{number + 1}")
        status, told = edge.ask("GET", path, made["token"])
        if status != 200:
            raise Fault(f"the edge does not take a good token: {status} {told}")
        vault.ask("POST", "/tokens/revoke", admin, {"jti": made["jti"]})
        began = time.monotonic()
        while edge.ask("GET", path, made["token"])[0] != 401:
            if time.monotonic() - began > 10:
                raise Fault("the edge never learnt of a revocation")
        took.append(time.monotonic() - began)
    took.sort()
    slow = took[REVOCATIONS * 99 // 100 - 1]
    print(f"ok {REVOCATIONS} revocations reach the edge: median {took[REVOCATIONS // 2] * 1000:.1f} ms, "
          f"99 % within {slow * 1000:.1f} ms, all within {took[-1] * 1000:.1f} ms")
    if slow > LEARNT_S:
        raise Fault(f"99 % of revocations take {slow * 1000:.0f} ms to reach the edge, not {LEARNT_S * 1000:.0f}")
    return 1


def main():
    """Runs every conversation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice", required=True, type=Path)
    options = parser.parse_args()
    passed = failed = 0
    try:
        install()
        with Instance(options.sluice) as instance:
            banner = instance.banner
            for name in ("vault", "edge"):
                for kind, client in (("oauth", CLIENT), ("spiffe", WORKLOAD)):
                    try:
                        passed += talk(client, banner[name], banner["token"], f"{kind}-{name}")
                    except (Fault, subprocess.TimeoutExpired) as fault:
                        failed += 1
                        print(f"FAILED {fault}")
            passed += revocations(banner)
    except (Fault, StartError) as fault:
        failed += 1
        print(f"FAILED {fault}")
    print(f"oauth: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
