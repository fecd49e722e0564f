"""Run by tests/acme.py: the library behind certbot from account to revocation, then what an attacker would try.

    acme_client.py JSON

The JSON has the issuer's address, the vault's own, the port of challenges, the administrator's token and the roots.
"""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import sys
import threading
import time
import urllib.parse

import josepy
import requests
from acme import challenges, client, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

TOLD = json.loads(sys.argv[1])
ISSUER, VAULT = TOLD["issuer"], urllib.parse.urlsplit(TOLD["vault"]).netloc
URN = "urn:ietf:params:acme:error:"


def ok(what):
    """Says that a check passed."""
    print("ok", what)


def same(got, expected):
    """Fails with both where they differ."""
    if got != expected:
        raise AssertionError(f"got {got!r}, not {expected!r}")


def b64(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Challenges(http.server.ThreadingHTTPServer):
    """Answers challenges: each token in its own way."""

    answers, asked, daemon_threads = {}, [], True

    class Handler(http.server.BaseHTTPRequestHandler):
        """One look-up."""

        def do_GET(self):
            """Answers as the token's entry says."""
            self.server.asked.append(self.path)
            kind, text = self.server.answers.get(self.path.rsplit("/", 1)[-1], ("none", ""))
            if kind == "slow":
                time.sleep(30)
            if kind == "redirect":
                self.send_response(302)
                self.send_header("location", "http://169.254.169.254/latest/meta-data/")
                self.end_headers()
                return
            self.send_response(404 if kind == "none" else 200)
            self.end_headers()
            try:
                self.wfile.write(b"x" * (8 << 20) if kind == "huge" else text.encode())
            except OSError:
                pass  # who looks up has heard enough

        def log_message(self, *_):
            """Says nothing."""


class Elsewhere(requests.adapters.HTTPAdapter):
    """The edge counts what an address asks of ACME: certbot has used some of this minute's from 127.0.0.1."""

    def init_poolmanager(self, *args, **more):
        """Connects from another address."""
        super().init_poolmanager(*args, source_address=("127.0.1.1", 0), **more)


def serve():
    """The server of challenges, running."""
    server = Challenges(("127.0.0.1", TOLD["port"]), Challenges.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def admin(method, path, body=None):
    """A call of the administrator at the vault's port."""
    headers = {"authorization": f"Bearer {TOLD['admin']}"}
    answer = requests.request(method, f"http://{VAULT}{path}", json=body, headers=headers, timeout=10)
    return answer.status_code, answer.json() if answer.text.startswith("{") else answer.text


def bind(service, **more):
    """A binding key."""
    status, made = admin("POST", "/acme/external-accounts", {"service_name": service, **more})
    same(status, 201)
    return made


def csr(key, *names, common=None, uris=()):
    """A certificate request, DER."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    alternatives = [x509.DNSName(name) for name in names] + [x509.UniformResourceIdentifier(uri) for uri in uris]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
    return builder.sign(key, hashes.SHA256())


class Account:
    """A client of our own, that can also do everything wrong. It speaks to the vault's port."""

    def __init__(self, key=None):
        self.key, self.kid = key or ec.generate_private_key(ec.SECP256R1()), None
        self.nonce = self.plain("HEAD", "/acme/new-nonce")[1]["replay-nonce"]

    def plain(self, method, path, body=None, headers=None):
        """Status, headers and JSON or text."""
        line = http.client.HTTPConnection(VAULT, timeout=15)
        line.request(method, path, body, headers or {})
        answer = line.getresponse()
        text = answer.read().decode()
        found = {}
        for name, value in answer.getheaders():
            found[name.lower()] = ", ".join(filter(None, (found.get(name.lower()), value)))
        line.close()
        return answer.status, found, json.loads(text) if text.startswith("{") else text

    def jwk(self):
        """The public key."""
        public = self.key.public_key()
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
            return {"crv": "Ed25519", "kty": "OKP", "x": b64(raw)}
        numbers = public.public_numbers()
        return {"crv": "P-256", "kty": "EC", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}

    def thumbprint(self):
        """RFC 7638."""
        return b64(hashlib.sha256(json.dumps(self.jwk(), separators=(",", ":"), sort_keys=True).encode()).digest())

    def sign(self, message):
        """A JOSE signature."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def jws(self, path, payload, **header):
        """A flattened JWS; `header` overrides the protected header, `None` leaves a member out."""
        alg = "EdDSA" if isinstance(self.key, ed25519.Ed25519PrivateKey) else "ES256"
        protected = {"alg": alg, "nonce": self.nonce, "url": ISSUER + path,
                     **({"kid": self.kid} if self.kid else {"jwk": self.jwk()}), **header}
        protected = b64(json.dumps({name: value for name, value in protected.items() if value is not None}).encode())
        payload = "" if payload is None else b64(json.dumps(payload).encode())
        return {"protected": protected, "payload": payload, "signature": b64(self.sign(f"{protected}.{payload}".encode()))}

    def post(self, path, payload=None, kind="application/jose+json", body=None, **header):
        """A signed request; the answer's nonce is kept for the next."""
        text = json.dumps(body or self.jws(path, payload, **header))
        status, headers, told = self.plain("POST", path, text, {"content-type": kind})
        if "replay-nonce" not in headers or headers["replay-nonce"] == self.nonce:
            raise AssertionError(f"{path}: no fresh nonce with {status}")
        same(f'<{ISSUER}/acme/directory>;rel="index"' in headers["link"].split(", "), True)
        self.nonce = headers["replay-nonce"]
        return status, headers, told

    def refused(self, word, status, path, payload=None, **more):
        """A request that must be refused with a word of the standard."""
        got, headers, told = self.post(path, payload, **more)
        same((got, told.get("type"), headers["content-type"]), (status, URN + word, "application/problem+json"))
        return told

    def binding(self, eab, key=None, url=None):
        """The member externalAccountBinding."""
        protected = b64(json.dumps({"alg": "HS256", "kid": eab["kid"], "url": url or f"{ISSUER}/acme/new-account"}).encode())
        payload = b64(json.dumps(key or self.jwk()).encode())
        secret = base64.urlsafe_b64decode(eab["hmac_key"] + "=")
        mac = hmac.digest(secret, f"{protected}.{payload}".encode(), "sha256")
        return {"protected": protected, "payload": payload, "signature": b64(mac)}

    def register(self, eab):
        """Makes the account."""
        status, headers, told = self.post("/acme/new-account", {"externalAccountBinding": self.binding(eab)})
        same((status, told.get("status")), (201, "valid"))
        self.kid = headers["location"]
        return self

    def order(self, *names):
        """A new order: its path and what is told of it."""
        wish = {"identifiers": [{"type": "dns", "value": name} for name in names]}
        status, headers, told = self.post("/acme/new-order", wish)
        same((status, told.get("status")), (201, "pending"))
        return headers["location"].removeprefix(ISSUER), told

    def challenge(self, order):
        """The first challenge of an order, and its authorization's path."""
        path = order["authorizations"][0].removeprefix(ISSUER)
        return self.post(path)[2]["challenges"][0], path

    def begin(self, order, server, kind="good"):
        """Has a challenge looked up that is answered in some way; the authorization's path."""
        challenge, path = self.challenge(order)
        server.answers[challenge["token"]] = (kind, f"{challenge['token']}.{self.thumbprint()}")
        same(self.post(challenge["url"].removeprefix(ISSUER), {})[0], 200)
        return path

    def settled(self, path, within=12):
        """An authorization that is no longer pending."""
        until = time.monotonic() + within
        while True:
            told = self.post(path)[2]
            if told["status"] != "pending" or time.monotonic() > until:
                return told
            time.sleep(0.05)

    def certificate(self, server, name="localhost", key=None):
        """A certificate from order to download; the key and the chain."""
        path, told = self.order(name)
        same(self.settled(self.begin(told, server))["status"], "valid")
        key = key or ec.generate_private_key(ec.SECP256R1())
        request = csr(key, name).public_bytes(serialization.Encoding.DER)
        status, _, told = self.post(told["finalize"].removeprefix(ISSUER), {"csr": b64(request)})
        same((status, told.get("status")), (200, "valid"))
        status, headers, chain = self.post(told["certificate"].removeprefix(ISSUER))
        same((status, headers["content-type"]), (200, "application/pem-certificate-chain"))
        return key, x509.load_pem_x509_certificates(chain.encode())


def revoked():
    """Serials of the revocation lists."""
    text = requests.get(f"http://{VAULT}/ca/crl", timeout=10).text
    lists = [part + "-----END X509 CRL-----\n" for part in text.split("-----END X509 CRL-----\n")[:-1]]
    return {entry.serial_number for one in lists for entry in x509.load_pem_x509_crl(one.encode())}


def the_library(server):
    """acme.client, unmodified, over TLS through the edge."""
    key = josepy.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    net = client.ClientNetwork(key, alg=josepy.ES256, user_agent="sluice-gate")
    net.session.mount("https://", Elsewhere())
    found = client.ClientV2.get_directory(f"{ISSUER}/acme/directory", net)
    api = client.ClientV2(found, net)
    same(api.external_account_required(), True)
    eab = bind("bot", identity=True)
    binding = messages.ExternalAccountBinding.from_data(net.key.public_key(), eab["kid"], eab["hmac_key"], found)
    account = api.new_account(messages.NewRegistration.from_data(email="desk@example.com", external_account_binding=binding))
    same(account.body.contact, ("mailto:desk@example.com",))
    leaf = ec.generate_private_key(ec.SECP256R1())
    order = api.new_order(csr(leaf, "localhost").public_bytes(serialization.Encoding.PEM))
    body = next(one for one in order.authorizations[0].body.challenges if isinstance(one.chall, challenges.HTTP01))
    response, validation = body.response_and_validation(net.key)
    server.answers[body.chall.encode("token")] = ("good", validation)
    api.answer_challenge(body, response)
    order = api.poll_and_finalize(order)
    chain = x509.load_pem_x509_certificates(order.fullchain_pem.encode())
    same(chain[0].public_key(), leaf.public_key())
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same(names.get_values_for_type(x509.DNSName), ["localhost"])
    same(names.get_values_for_type(x509.UniformResourceIdentifier), ["spiffe://sluice.internal/service/bot"])
    with open(TOLD["roots"], "rb") as roots:
        known = x509.load_pem_x509_certificates(roots.read())
    chain[0].verify_directly_issued_by(chain[1])
    same(chain[1] in known, True)
    root = next(one for one in known if one.subject == one.issuer)
    chain[1].verify_directly_issued_by(root)
    window = api.renewal_time(order.fullchain_pem.encode())[0]
    life = chain[0].not_valid_after_utc - chain[0].not_valid_before_utc
    share = (window - chain[0].not_valid_before_utc) / life
    same(0.6 < share < 0.8, True)
    api.revoke(chain[0], 4)
    same(chain[0].serial_number in revoked(), True)
    updated = api.update_registration(account.update(body=account.body.update(contact=("mailto:other@example.com",))))
    same(updated.body.contact, ("mailto:other@example.com",))
    api.deactivate_registration(updated)
    try:
        api.new_order(csr(leaf, "localhost").public_bytes(serialization.Encoding.PEM))
        raise AssertionError("a deactivated account ordered")
    except messages.Error as error:
        same(error.typ, URN + "unauthorized")
    ok("the library registers, orders, downloads, asks when to renew, revokes, updates and deactivates")


def envelopes():
    """Requests that are wrong in themselves."""
    one, other = Account().register(bind("plain")), Account()
    stale = one.nonce
    same(one.post("/acme/new-order", {"identifiers": []})[0], 400)
    one.refused("badNonce", 400, "/acme/new-order", {}, nonce=stale)
    one.refused("badNonce", 400, "/acme/new-order", {}, nonce="AAAA")
    one.refused("badNonce", 400, "/acme/new-order", {}, nonce=None)
    same(one.post("/acme/new-order", {"identifiers": []})[2]["type"], URN + "malformed")
    one.refused("unauthorized", 403, "/acme/new-order", {}, url=ISSUER + "/acme/key-change")
    one.refused("unauthorized", 403, "/acme/new-order", {}, url=f"http://{VAULT}/acme/new-order")
    other.kid = one.kid
    other.refused("unauthorized", 403, "/acme/new-order", {})
    one.refused("accountDoesNotExist", 400, "/acme/new-order", {}, kid=one.kid + "0")
    one.refused("malformed", 400, "/acme/new-order", {}, jwk=one.jwk())
    one.refused("malformed", 400, "/acme/new-order", {}, kid=None, jwk=one.jwk())
    one.refused("malformed", 400, "/acme/new-order", {}, crit=["exp"])
    for alg in ("none", "HS256", "RS512"):
        told = one.refused("badSignatureAlgorithm", 400, "/acme/new-order", {}, alg=alg)
        same("ES256" in told["algorithms"], True)
    one.refused("unauthorized", 403, "/acme/new-order", {}, alg="RS256")
    one.refused("malformed", 415, "/acme/new-order", {}, kind="application/json")
    one.refused("malformed", 400, "/acme/new-order", body={"a": 1})
    bare = one.jws("/acme/new-order", {"identifiers": []})
    one.refused("malformed", 400, "/acme/new-order", body={**bare, "header": {}})
    one.refused("unauthorized", 403, "/acme/new-order", body={**bare, "payload": b64(b"{ }"), **fresh(one)})
    ok("forged, replayed, misdirected and unsigned requests are refused")


def fresh(account):
    """The protected header and signature of another payload, with a good nonce."""
    made = account.jws("/acme/new-order", {"identifiers": []})
    return {"protected": made["protected"], "signature": made["signature"]}


def accounts():
    """Who gets an account, and how it ends."""
    eab = bind("plain")
    nobody = Account(ed25519.Ed25519PrivateKey.generate())
    nobody.refused("externalAccountRequired", 403, "/acme/new-account", {})
    nobody.refused("accountDoesNotExist", 400, "/acme/new-account", {"onlyReturnExisting": True})
    forged = {**eab, "hmac_key": b64(b"x" * 32)}
    for binding in (nobody.binding(forged), nobody.binding({**eab, "kid": eab["kid"][:-1] + "x"})):
        nobody.refused("unauthorized", 403, "/acme/new-account", {"externalAccountBinding": binding})
    for binding in (nobody.binding(eab, key=Account().jwk()), nobody.binding(eab, url=ISSUER + "/acme/key-change")):
        nobody.refused("malformed", 400, "/acme/new-account", {"externalAccountBinding": binding})
    bad = {"externalAccountBinding": nobody.binding(eab), "contact": ["tel:1"]}
    nobody.refused("unsupportedContact", 400, "/acme/new-account", bad)
    one, other = Account(ed25519.Ed25519PrivateKey.generate()).register(eab), Account().register(eab)
    own = one.kid.removeprefix(ISSUER)
    other.refused("malformed", 404, own)
    again = Account(one.key)
    status, headers, _ = again.post("/acme/new-account", {"onlyReturnExisting": True})
    same((status, headers["location"]), (200, one.kid))
    new = Account()
    for key, status in ((other, 409), (new, 200)):
        inner = key.jws("/acme/key-change", {"account": one.kid, "oldKey": one.jwk()}, nonce=None, kid=None, jwk=key.jwk())
        got, headers, _ = one.post("/acme/key-change", inner)
        same(got, status)
        same(headers["location"], other.kid if status == 409 else one.kid)
    one.refused("unauthorized", 403, own)
    new.kid = one.kid
    same(new.post(own)[0], 200)
    listed = admin("GET", "/acme/external-accounts?service=plain")[1]["external_accounts"]
    same([("hmac_key" in key) for key in listed if key["kid"] == eab["kid"]], [False])
    same(admin("DELETE", f"/acme/external-accounts/{eab['kid']}")[0], 204)
    for account in (new, other):
        account.refused("unauthorized", 403, "/acme/new-order", {"identifiers": []})
    late = Account()
    late.refused("unauthorized", 403, "/acme/new-account", {"externalAccountBinding": late.binding(eab)})
    ok("accounts need a service's key, change their own, and end with it")


def orders(server):
    """What may be ordered, and what has to be proved for it."""
    one, other = Account().register(bind("plain")), Account().register(bind("web"))
    for name, word in (("*.acme.invalid", "rejectedIdentifier"), ("edge", "rejectedIdentifier"), ("acme.invalid", "rejectedIdentifier"),
                       ("plain.sluice.internal", "rejectedIdentifier"), ("Localhost", "rejectedIdentifier"), ("", "rejectedIdentifier")):
        one.refused(word, 403, "/acme/new-order", {"identifiers": [{"type": "dns", "value": name}]})
    one.refused("unsupportedIdentifier", 400, "/acme/new-order", {"identifiers": [{"type": "ip", "value": "127.0.0.1"}]})
    many = [{"type": "dns", "value": f"n{n}.acme.invalid"} for n in range(33)]
    one.refused("malformed", 400, "/acme/new-order", {"identifiers": many})
    for kind, word in (("none", "incorrectResponse"), ("redirect", "incorrectResponse"), ("huge", "incorrectResponse")):
        path, told = one.order("localhost")
        found = one.settled(one.begin(told, server, kind))
        same((found["status"], found["challenges"][0]["error"]["type"]), ("invalid", URN + word))
        same(one.post(path)[2]["status"], "invalid")
    path, told = one.order("nowhere.acme.invalid")
    found = one.settled(one.begin(told, server))
    same((found["status"], found["challenges"][0]["error"]["type"]), ("invalid", URN + "dns"))
    path, told = one.order("localhost", "localhost")
    same((len(told["authorizations"]), told["identifiers"]), (1, [{"type": "dns", "value": "localhost"}]))
    for foreign in (path, path + "/finalize", told["authorizations"][0].removeprefix(ISSUER)):
        other.refused("malformed", 404, foreign, {"csr": ""} if foreign.endswith("finalize") else None)
    challenge, _ = one.challenge(told)
    other.refused("malformed", 404, challenge["url"].removeprefix(ISSUER), {})
    key = ec.generate_private_key(ec.SECP256R1())
    finalize = told["finalize"].removeprefix(ISSUER)

    def ask(word, request):
        der = request.public_bytes(serialization.Encoding.DER)
        one.refused(word, 403 if word == "orderNotReady" else 400, finalize, {"csr": b64(der)})

    ask("orderNotReady", csr(key, "localhost"))
    same(one.settled(one.begin(told, server))["status"], "valid")
    ask("badCSR", csr(key))
    ask("badCSR", csr(key, "localhost", "n.acme.invalid"))
    ask("badCSR", csr(key, "localhost", common="edge"))
    ask("badCSR", csr(key, "localhost", uris=["spiffe://sluice.internal/role/edge"]))
    ask("badCSR", csr(one.key, "localhost"))
    one.refused("badCSR", 400, finalize, {"csr": "AAAA"})
    same(one.post(finalize, {"csr": b64(csr(key, "localhost").public_bytes(serialization.Encoding.DER))})[2]["status"], "valid")
    ask("orderNotReady", csr(key, "localhost"))
    same([path for path in server.asked if not path.startswith("/.well-known/acme-challenge/")], [])
    ok("nothing is issued but for the names that were ordered, allowed and proved")


def ends(server):
    """Revocation: by the account, by the certificate's key, by nobody else, and with the service."""
    eab = bind("plain")
    one, other = Account().register(eab), Account().register(bind("web"))
    key, chain = one.certificate(server)
    der = b64(chain[0].public_bytes(serialization.Encoding.DER))
    other.refused("unauthorized", 403, "/acme/revoke-certificate", {"certificate": der})
    Account().refused("unauthorized", 403, "/acme/revoke-certificate", {"certificate": der})
    one.refused("badRevocationReason", 400, "/acme/revoke-certificate", {"certificate": der, "reason": 7})
    serial = f"{chain[0].serial_number:x}"
    other.refused("malformed", 404, f"/acme/certificate/{serial}")
    own = Account(key)
    same(own.post("/acme/revoke-certificate", {"certificate": der, "reason": 1})[0], 200)
    same(chain[0].serial_number in revoked(), True)
    one.refused("alreadyRevoked", 400, "/acme/revoke-certificate", {"certificate": der})
    uris = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same(uris.get_values_for_type(x509.UniformResourceIdentifier), [])
    _, chain = one.certificate(server)
    same(admin("POST", "/tokens/revoke", {"service": "plain"})[0], 200)
    one.refused("unauthorized", 403, "/acme/new-order", {"identifiers": []})
    same(chain[0].serial_number in revoked(), True)
    late = Account()
    late.refused("unauthorized", 403, "/acme/new-account", {"externalAccountBinding": late.binding(eab)})
    ok("certificates are revoked by account, key and with their service, by nobody else")


def main():
    """Everything, in an order in which nothing waits for long."""
    server = serve()
    patient = Account().register(bind("web"))
    path, order = patient.order("localhost")
    silent = patient.begin(order, server, "slow")
    the_library(server)
    envelopes()
    accounts()
    orders(server)
    ends(server)
    found = patient.settled(silent)
    same((found["status"], found["challenges"][0]["error"]["type"]), ("invalid", URN + "connection"))
    same(patient.post(path)[2]["status"], "invalid")
    ok("who does not answer is not waited for")


if __name__ == "__main__":
    main()
