"""The rules that Sluice ships for Falco: every field, macro, list and event type in them exists and is used right.

No Falco is run: it needs a kernel driver. Conditions are parsed with Falco's grammar; known fields are those of
conf/observe/falco/fields.txt, which says where each comes from. A rule that names what is not there would keep Falco
from loading the file, or, worse, would compare with a bare word where a list was meant. The lint is itself checked:
rules with one mistake each must be refused.
Prints a line a check, then `falco: N passed, N failed`; exits 0 or 1.
"""

import re
import sys

from deploy import VENV, Fault, run
from instance import ROOT

HOME = ROOT / "conf/observe/falco"
PACKAGE = "PyYAML==6.0.3"
PRIORITIES = {"EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFORMATIONAL", "DEBUG"}
KEYS = {
    "required_engine_version": set(),
    "list": {"items"},
    "macro": {"condition"},
    "rule": {"desc", "condition", "output", "priority", "tags"},
}
# https://falco.org/docs/reference/rules/supported-events/: those that rules name.
EVENTS = {
    "open", "openat", "openat2", "execve", "execveat", "connect", "listen", "unlink", "unlinkat", "rename", "renameat",
    "renameat2", "truncate", "ptrace", "process_vm_readv",
}
COMPARISONS = {"=", "==", "!=", "<", "<=", ">", ">="}
TEXTUAL = {"contains", "icontains", "bcontains", "startswith", "bstartswith", "endswith", "glob", "iglob", "regex"}
MEMBERS = {"in", "intersects", "pmatch"}
# An address is no text: `fd.sip contains "x"` can never hold; the name is in `fd.sip.name`.
ADDRESSES = {"fd.ip", "fd.cip", "fd.sip", "fd.lip", "fd.rip", "fd.net", "fd.cnet", "fd.snet", "fd.lnet", "fd.rnet"}
TOKEN = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(!=|<=|>=|==|[()=<>,])|([^\s()=<>!,"']+))""")
NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
ENGINE_RULES = 12

# One mistake each, put in the place of a sound condition, and what the lint must say.
WRONG = {
    "proc.nam = sh": "field",
    "evt.priority = 1": "field",
    "no_such_macro and evt.type = open": "macro",
    "evt.type = open and proc.name in (no_such_list)": "list",
    "evt.type = sendfile64x": "event type",
    'evt.type = connect and fd.sip contains "binance"': "address",
    "evt.type = open and": "ends",
    "evt.type = open proc.name = sh": "behind",
    "(evt.type = open": "ends",
    "evt.type in open": "(",
}


def install():
    """A parser of YAML."""
    stamp = VENV / "falco.release"
    if not (stamp.is_file() and stamp.read_text() == PACKAGE):
        if not (VENV / "bin/pip").exists():
            run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE)
        stamp.write_text(PACKAGE)
    sys.path[:0] = [str(path) for path in VENV.glob("lib/python3*/site-packages")]


def fields():
    """The known fields."""
    lines = (HOME / "fields.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def tokens(text):
    """Words, operators and quoted texts of a condition; quoted ones keep their first quote."""
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise Fault(f"{text[at:at + 20]!r} is no word of the language")
        found.append(match[1] or match[2] or match[3])
        at = match.end()
    return found


class Condition:
    """A recursive descent through one condition; remembers the macros and lists it names."""

    def __init__(self, text, known, macros, lists):
        self.rest, self.known, self.macros, self.lists = tokens(text), known, macros, lists
        self.used = set()
        self.either()
        if self.rest:
            raise Fault(f"{self.rest[0]!r} stands behind the end")

    def next(self):
        """The next token, taken."""
        if not self.rest:
            raise Fault("the condition ends too early")
        return self.rest.pop(0)

    def either(self):
        """`a or b`"""
        self.all()
        while self.rest[:1] == ["or"]:
            self.next()
            self.all()

    def all(self):
        """`a and b`"""
        self.one()
        while self.rest[:1] == ["and"]:
            self.next()
            self.one()

    def one(self):
        """`not a`, `(a)`, a macro or a comparison."""
        word = self.next()
        if word == "not":
            self.one()
        elif word == "(":
            self.either()
            if self.next() != ")":
                raise Fault("a parenthesis stays open")
        elif "." in word:
            self.comparison(word)
        elif word not in self.macros:
            raise Fault(f"there is no macro {word!r}")
        else:
            self.used.add(word)

    def comparison(self, field):
        """`field op value`"""
        if re.sub(r"\[[^]]*\]\Z", "", field) not in self.known:
            raise Fault(f"there is no field {field!r}")
        operator = self.next()
        if operator == "exists":
            return
        if operator in TEXTUAL and field in ADDRESSES:
            raise Fault(f"{field} is an address, not a text")
        if operator in MEMBERS:
            self.members(field)
        elif operator in COMPARISONS | TEXTUAL:
            self.value(field, self.next())
        else:
            raise Fault(f"{operator!r} is no operator")

    def members(self, field):
        """`(a, b, list)`: outside of event types a bare word is a list."""
        if self.next() != "(":
            raise Fault("a list begins with (")
        while True:
            item = self.next()
            if NAME.match(item) and field != "evt.type":
                if item not in self.lists:
                    raise Fault(f"there is no list {item!r}; a text is quoted")
                self.used.add(item)
            else:
                self.value(field, item)
            mark = self.next()
            if mark == ")":
                return
            if mark != ",":
                raise Fault(f"{mark!r} stands between two items")

    def value(self, field, value):
        """A literal."""
        if value in {"(", ")", ",", "and", "or", "not"}:
            raise Fault(f"{value!r} stands where a value is needed")
        if field == "evt.type" and value not in EVENTS:
            raise Fault(f"{value!r} is no event type that is known here")


def lint(items, known):
    """Every fault of a rules file; how many rules it has."""
    macros = {item["macro"] for item in items if "macro" in item}
    lists = {item["list"] for item in items if "list" in item}
    used, faults, names = set(), [], set()
    for item in items:
        kind = next(iter(item))
        name = f"{kind} {item[kind]!r}"
        try:
            if kind not in KEYS or set(item) - {kind} != KEYS[kind]:
                raise Fault(f"has the keys {sorted(set(item) - {kind})}")
            if name in names:
                raise Fault("stands twice")
            names.add(name)
            if kind == "list":
                # A list may hold another.
                used.update(str(word) for word in item["items"] if str(word) in lists)
            if "condition" in item:
                used |= Condition(item["condition"], known, macros, lists).used
            if kind == "rule":
                if item["priority"] not in PRIORITIES:
                    raise Fault(f"{item['priority']} is no priority")
                if "evt.type" not in item["condition"] and not used_types(item["condition"], items):
                    raise Fault("has no event type: Falco would look at every event")
                for field in re.findall(r"%([a-z_.]+[a-z])", item["output"]):
                    if field not in known:
                        raise Fault(f"the output names {field!r}, which is no field")
        except Fault as fault:
            faults.append(f"{name}: {fault}")
    faults += [f"{word!r} is never used" for word in sorted((macros | lists) - used)]
    return faults, len([name for name in names if name.startswith("rule ")])


def used_types(condition, items):
    """Whether a macro of a condition names an event type."""
    macros = {item["macro"]: item["condition"] for item in items if "macro" in item}
    return any("evt.type" in macros.get(word, "") for word in tokens(condition))


def main():
    """Lints the shipped rules, then the lint."""
    results = []

    def check(name, faults):
        results.append(not faults)
        print(f"{'ok' if not faults else 'FAILED'} {name}" + "".join(f"\n    {fault}" for fault in faults))

    try:
        install()
        import yaml
        known, text = fields(), (HOME / "rules.yaml").read_text()
        items = yaml.safe_load(text)
        faults, rules = lint(items, known)
        check("rules: fields, macros, lists, event types, outputs", faults)
        check("as many rules as there were", [] if rules >= ENGINE_RULES else [f"{rules} rules"])
        # The vault takes the names for its metrics by this form of a line.
        plain = re.findall(r"^- rule: (.+)$", text, re.M)
        named = [item["rule"] for item in items if "rule" in item]
        check("names are written plainly", [] if plain == named else [f"{plain} are not {named}"])
        for condition, word in WRONG.items():
            rule = {"rule": "x", "desc": "x", "condition": condition, "output": "x", "priority": "ERROR", "tags": []}
            faults = [fault for fault in lint([*items, rule], known)[0] if word in fault and "rule 'x'" in fault]
            check(f"refused: {condition}", [] if faults else ["it was not"])
    except Fault as fault:
        check("rules can be read", [str(fault)])
    print(f"falco: {sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
