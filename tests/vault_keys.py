"""The part of vault.py where an operator gives the vault new keys: by `sluice vault`, by bao, by hvac. The vault begins
with a key file and is moved to another one, to shares, and back.
"""

import json
import subprocess
from pathlib import Path

from deploy import Fault
from instance import bare

CALL_S = 60


def same(got, expected, what):
    if got != expected:
        raise Fault(f"{what}: {got}, not {expected}")


class Commands:
    """`sluice vault …` at an instance."""

    def __init__(self, sluice, instance, root):
        self.sluice, self.folder = sluice, Path(instance.banner["data_dir"])
        self.environment = {**bare(), "SLUICE_TOKEN": root}
        self.key_file, self.ran = self.folder / "vault/unseal.key", 0

    def ask(self, *words, text="", code=0, root=True):
        """The last JSON line but for empty output; `text` is standard input."""
        self.ran += 1
        environment = self.environment if root else {**self.environment, "SLUICE_TOKEN": "hvs.none"}
        command = [self.sluice, "vault", *words, "--dev", "--data-dir", str(self.folder), "--format", "json"]
        done = subprocess.run(command, env=environment, input=text, text=True, timeout=CALL_S, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        same(done.returncode, code, f"sluice vault {' '.join(words)}: {done.stdout} {done.stderr}")
        return json.loads(done.stdout.splitlines()[0]) if done.stdout else done.stderr

    def to_shares(self):
        """From the key file to three shares of which two open it."""
        told = self.ask("rekey", "--key-file", str(self.key_file), "--shares", "3", "--threshold", "2")
        same((told["seal"], len(told["shares"])), ("shamir", 3), "shares")
        return told["shares"]

    def to_file(self, shares):
        """From two shares to the key file again."""
        self.key_file.unlink()
        self.ask("rekey", "--new-key-file", str(self.key_file), text="\n".join(shares[:2]))
        same(self.ask("status")["seal"], "file", "seal")


def by_commands(vault, call, url):
    """`sluice vault`, all of it."""
    status = vault.ask("status")
    same((status["sealed"], status["seal"]), (False, "file"), "status")
    if "permission denied" not in vault.ask("rotate", code=2, root=False):
        raise Fault("a stranger is not told so")
    same(vault.ask("rotate")["term"], 2, "term")
    before = vault.key_file.read_text()
    vault.ask("rekey", "--key-file", str(vault.key_file))
    if vault.key_file.read_text() == before or vault.key_file.with_name("unseal.key.new").exists():
        raise Fault("the new key is not in the place of the former one")
    broken = vault.folder / "wrong.key"
    broken.write_text("00" * 32)
    vault.ask("rekey", "--key-file", str(broken), "--shares", "3", "--threshold", "2", code=2)
    vault.ask("init", code=2)
    shares = vault.to_shares()
    vault.ask("seal")
    same(vault.ask("status", code=3)["sealed"], True, "sealed")
    same(vault.ask("unseal", text=shares[0])["progress"], 1, "progress")
    same(vault.ask("unseal", text=f"\n{shares[2]}\n")["sealed"], False, "unsealed")
    again = vault.ask("rekey", text="\n".join(shares[1:]))["shares"]
    same(len(again), 3, "as many shares as before")
    vault.ask("generate-root", text="\n".join(shares[:2]), code=2)
    token = vault.ask("generate-root", text="\n".join(again[1:]), root=False)["root_token"]
    same(call(url, token, "GET", "auth/token/lookup-self")[1]["data"]["policies"], ["root"], "the root token")
    vault.to_file(again)
    log = (vault.folder / "audit/vault.jsonl").read_text()
    for secret in (*shares, *again, token, vault.key_file.read_text().strip(), before.strip()):
        if secret in log:
            raise Fault("a key is in the audit log")
    return f"{vault.ran} commands of sluice vault"


def by_bao(vault, program, url):
    """bao's own commands on shares."""
    environment = {**bare(), "BAO_ADDR": url, "BAO_TOKEN": vault.environment["SLUICE_TOKEN"],
                   "HOME": str(vault.folder), "BAO_FORMAT": "json"}
    ran = 0

    def bao(*words, fails=False):
        nonlocal ran
        ran += 1
        done = subprocess.run([program, "operator", *words], env=environment, timeout=CALL_S, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if (done.returncode != 0) != fails:
            raise Fault(f"bao operator {' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return done.stdout

    shares = vault.to_shares()
    term = bao("key-status")["term"]
    bao("rotate")
    same(bao("key-status")["term"], term + 1, "term after a rotation")
    bao("seal")
    bao("unseal", shares[0])
    same(bao("unseal", shares[1])["sealed"], False, "unsealed by bao")
    nonce = bao("rekey", "-init", "-key-shares=3", "-key-threshold=2", "-verify")["nonce"]
    bao("rekey", f"-nonce={nonce}", shares[1])
    made = bao("rekey", f"-nonce={nonce}", shares[2])
    verify = made["verification_nonce"]
    bao("rekey", "-verify", f"-nonce={verify}", made["keys"][0])
    bao("rekey", "-verify", f"-nonce={verify}", made["keys"][1])
    same(bao("rekey", "-status")["started"], False, "under way once it is verified")
    bao("rekey", "-init", "-key-shares=1", "-key-threshold=1")
    same(bao("rekey", "-status")["started"], True, "under way")
    bao("rekey", "-cancel")
    begun = bao("generate-root", "-init")
    bao("generate-root", f"-nonce={begun['nonce']}", made["keys"][2])
    encoded = bao("generate-root", f"-nonce={begun['nonce']}", made["keys"][0])["encoded_token"]
    token = bao("generate-root", f"-decode={encoded}", f"-otp={begun['otp']}")
    token = token["token"] if isinstance(token, dict) else token.strip()
    same(token.startswith("hvs."), True, f"the token that bao decodes: {token}")
    environment["BAO_TOKEN"] = token
    bao("rotate")
    vault.to_file(made["keys"])
    return f"{ran} operator commands of bao"
