"""Looks at the dashboard as a person would, in headless Chromium.

    check.py --url http://127.0.0.1:8012/dashboard --token TOKEN --out DIR
    check.py --mock [--out DIR]

Prints `console: N passed, N failed` and exits 0 or 1; 2 for wrong arguments. With --mock it also sees the
states a healthy system does not show: stale, refused token, nothing known yet.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import mock
import units
from browser import Browser, BrowserError

ROUTES = "document.querySelectorAll('#routes tbody tr').length"
UPSTREAMS = ROUTES.replace("routes", "upstreams")
CERTIFICATES = ROUTES.replace("routes", "security")
LANES = ROUTES.replace("routes", "lanes")
TAPE = "document.querySelectorAll('#tape tbody tr').length"
LIVE = "document.body.dataset.live"
SAID = "document.querySelector('#live').textContent"
GROUPS = "document.querySelector('#tape footer').innerText"
STRIP = "document.querySelector('#strip').innerText"
PAINTED = """(() => {
  const canvas = document.querySelector('%s');
  // Read from a copy: reading the page's own canvas back and back makes the browser warn, of us.
  const copy = Object.assign(document.createElement('canvas'), { width: canvas.width, height: canvas.height });
  const context = copy.getContext('2d', { willReadFrequently: true });
  if (canvas.width * canvas.height) context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, Math.max(1, canvas.width), Math.max(1, canvas.height));
  const colours = new Set();
  let painted = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (!data[i + 3]) continue;
    painted++;
    colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  }
  return [painted, colours.size];
})()"""
CUT = """[...document.querySelectorAll('.scroll')].filter((node) => node.scrollWidth > node.clientWidth + 1)
  .map((node) => `${node.closest('section').id} ${node.scrollWidth} > ${node.clientWidth}`)"""
UNNAMED = """[...document.querySelectorAll('button, input, select, summary, canvas[role]')].filter((node) => !node.hidden &&
  !(node.textContent.trim() || node.getAttribute('aria-label') || node.labels?.length || node.title)).map((node) => node.outerHTML)"""


class Checks:
    """Named checks, each alone: one that fails does not hide the next."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    def __call__(self, name, act):
        try:
            act()
        except (AssertionError, BrowserError) as fault:
            self.failed += 1
            print(f"FAIL {name}: {fault}")
        else:
            self.passed += 1
            print(f"ok   {name}")


def expect(value, words):
    if not value:
        raise AssertionError(words)


def see(browser, check, base):
    check("the page loads and goes live", lambda: browser.wait(f"{LIVE} === 'live'"))
    check("the state is a word", lambda: browser.wait("/Healthy|Degraded|Unhealthy|Draining/.test(%s)" % STRIP))

    def moves():
        first = browser.js(STRIP)
        browser.wait(f"{STRIP} !== {json.dumps(first)}")

    check("figures move between two snapshots", moves)
    check("routes are listed", lambda: browser.wait(f"{ROUTES} >= 1"))
    check("upstreams are listed", lambda: browser.wait(f"{UPSTREAMS} >= 1"))
    check("lanes are listed", lambda: browser.wait(f"{LANES} >= 1"))
    check("certificates are listed", lambda: browser.wait(f"{CERTIFICATES} >= 1"))
    check("the tape has rows", lambda: browser.wait(f"{TAPE} >= 3", 30))
    check("consumer groups tell how far behind they are",
          lambda: browser.wait(f"/behind, [0-9.]+ |up to date/.test({GROUPS})", 30))
    check("so is the age of the oldest event", lambda: browser.wait(f"/oldest event [0-9]/.test({GROUPS})", 30))
    check("events a second are told", lambda: browser.wait(f"/[0-9]\\/s · /.test({STRIP})", 30))

    def painted(selector, least, colours):
        browser.wait(f"(([many, kinds]) => many > {least} && kinds >= {colours})({PAINTED % selector})", 20)

    check("a sparkline is drawn", lambda: painted("#routes canvas", 30, 1))
    check("the chart is drawn", lambda: painted("#instrument canvas", 2000, 8))
    rsi = "/RSI 14 +[0-9]/.test(document.querySelector('#instrument [data-role=lower]').textContent)"
    check("indicators come from the calc worker", lambda: browser.wait(rsi, 60))
    bars = "document.querySelector('#instrument [data-role=legend]').textContent"
    check("Bollinger bands are among them", lambda: browser.wait(f"{bars}.includes('BB 20')", 20))

    def crosshair():
        before = browser.js(bars)
        browser.move(*browser.place("#instrument canvas", 0.3, 0.3))
        browser.wait(f"{bars} !== {json.dumps(before)}", 3)

    check("the crosshair reads another bar", crosshair)
    check("every control has a name", lambda: expect(not browser.js(UNNAMED), browser.js(UNNAMED)))


def keyboard(browser, check):
    def skip():
        browser.js("document.activeElement.blur()")
        browser.key("Tab", number=9)
        expect(browser.js("document.activeElement.className") == "skip", "the first Tab does not reach the skip link")

    check("the first Tab reaches the skip link", skip)

    def filter_():
        browser.js("document.activeElement.blur()")
        browser.key("/", "Slash", 191, text="/")
        expect(browser.js("document.activeElement.id") == "filter", "/ does not reach the filter")
        browser.type("market")
        types = "[...document.querySelectorAll('#tape tbody .type')]"
        browser.wait(f"{TAPE} > 0 && {types}.every((cell) => cell.textContent.includes('market'))", 5)
        browser.js("document.querySelector('#filter').select()")
        browser.key("Delete", number=46)
        browser.key("Escape", number=27)
        expect(browser.js("document.activeElement.id") != "filter", "Esc does not leave the filter")

    check("/ filters the tape, Esc leaves it", filter_)

    def pause():
        first = "document.querySelector('#tape tbody tr')?.innerText"
        browser.click("#tape [data-act=pause]")
        before = browser.js(first)
        browser.wait("/^[1-9][0-9]* new$/.test(document.querySelector('#tape .note').textContent)", 20)
        expect(browser.js(first) == before, "rows moved while paused")
        browser.click("#tape [data-act=pause]")
        browser.wait(f"{first} !== {json.dumps(before)}", 20)

    check("the tape pauses and resumes", pause)


def breaker(browser, check, token, name):
    button = f"[data-breaker={json.dumps(name)}]"
    word = f"document.querySelector({json.dumps(button)}).innerText.trim()"
    answer = "document.querySelector('#panel [data-role=answer]')"

    def read_only():
        browser.click(button)
        browser.wait("!document.querySelector('#panel').hidden", 3)
        expect(browser.js("document.querySelector('#panel fieldset').disabled"), "changes are open without a token")

    def esc():
        browser.key("Escape", number=27)
        browser.wait("document.querySelector('#panel').hidden", 3)
        expect(browser.js(f"document.activeElement.matches({json.dumps(button)})"), "the focus is lost")

    def give():
        browser.click("#token summary")
        browser.wait("document.activeElement.id === 'token-text'", 3)
        browser.type(token)
        browser.key("Enter", number=13, text="\r")
        browser.wait("document.querySelector('#token').dataset.set && !document.querySelector('#token').open", 5)
        expect(browser.js("Object.keys(localStorage).length === 0"), "the token was written to localStorage")
        browser.wait(f"{LIVE} === 'live'", 10)

    def reset():
        browser.click("#panel [data-act=reset]")
        browser.wait(f"{answer}.dataset.tone === 'ok'", 5)
        browser.wait(f"{word} === 'closed'", 5)

    def force():
        browser.click("#panel form [type=submit]")
        browser.wait(f"{answer}.dataset.tone === 'warn'", 3)
        browser.click("#panel [data-role=reason]")
        browser.type("dashboard check")
        browser.click("#panel form [type=submit]")
        browser.wait(f"{answer}.dataset.tone === 'ok'", 5)
        browser.wait(f"{word} === 'forced open'", 5)

    check("without a token the breaker panel only reads", read_only)
    check("Esc closes the panel and gives the focus back", esc)
    check("a token is taken and kept in this tab only", give)
    browser.click(button)
    check("a breaker is forced open, only with a reason", force)
    check("a breaker is reset", reset)
    hold(browser, check)
    browser.key("Escape", number=27)


def hold(browser, check):
    """In the panel that is open, with the token that was given."""
    first = "#panel [data-role=instances] li"
    said = f"document.querySelector({json.dumps(first)}).innerText"
    answer = "document.querySelector('#panel [data-role=hold-answer]')"
    state = "[...document.querySelectorAll('#upstreams tbody .state')].map((cell) => cell.innerText.trim())"

    def drain():
        browser.click("#panel [data-role=hold-reason]")
        browser.type("dashboard check")
        browser.click(f"{first} [data-hold=drain]")
        browser.wait(f"document.querySelector({json.dumps(first + ' [data-armed]')})?.innerText === 'Drain now'", 3)
        expect(not browser.js(f"{answer}.innerText"), "one press was enough")
        browser.click(f"{first} [data-hold=drain]")
        browser.wait(f"{answer}.dataset.tone === 'ok'", 5)
        browser.wait(f"{said}.includes('draining') && {said}.includes('dashboard check')", 5)
        browser.wait(f"{state}.includes('draining')", 5)

    def ready():
        browser.click(f"{first} [data-hold=ready]")
        browser.wait(f"{said}.includes('healthy') && !{said}.includes('dashboard check')", 20)
        browser.wait(f"!{state}.includes('draining')", 5)

    check("an instance is drained, by a second press", drain)
    check("and made ready again", ready)


def kill(browser, check):
    """With the token that the breaker's part has given."""
    answer = "document.querySelector('#kill [data-role=answer]')"
    lines = "document.querySelector('#kill ul').innerText"

    def stop():
        browser.click("#kill summary")
        browser.wait("document.querySelector('#kill').open", 3)
        browser.js("const s = document.querySelector('#kill [data-role=scope]');"
                   "s.value = 'account'; s.dispatchEvent(new Event('change'))")
        browser.click("#kill [data-role=target]")
        browser.type("dashboard-check")
        browser.click("#kill [data-role=stop]")
        browser.wait(f"{answer}.innerText.includes('reason')", 3)
        browser.click("#kill [data-role=reason]")
        browser.type("dashboard check")
        browser.click("#kill [data-role=stop]")
        browser.wait("!document.querySelector('#kill [data-role=confirm]').hidden", 3)
        expect(not browser.js(f"{lines}.includes('dashboard-check')"), "one press was enough")
        browser.click("#kill [data-role=confirm]")
        browser.wait(f"{answer}.dataset.tone === 'ok'", 5)
        browser.wait(f"{lines}.includes('account dashboard-check')", 5)

    def go_on():
        browser.click("#kill [data-role=reason]")
        browser.type("over")
        browser.js("[...document.querySelectorAll('#kill li')]"
                   ".find((li) => li.innerText.includes('dashboard-check')).querySelector('button').click()")
        browser.click("#kill [data-role=confirm]")
        browser.wait(f"!{lines}.includes('dashboard-check')", 5)

    check("an account is stopped, with a reason and a second press", stop)
    check("and let go on", go_on)
    browser.key("Escape", number=27)


def modules(browser, check):
    def holds(script):
        fault = browser.js(script)
        expect(not fault, fault)

    for name, script in units.UNITS.items():
        check(name, lambda script=script: holds(script))


def sizes(browser, check, out):
    browser.js("document.activeElement.blur()")
    browser.move(1, 1)

    def desk():
        browser.size(1440, 900)
        browser.wait("innerWidth === 1440")
        settle(browser)
        browser.shot(out / "console-1440x900.png")
        whole = browser.js("(({ scrollWidth, scrollHeight }) => [scrollWidth, scrollHeight])(document.documentElement)")
        expect(whole == [1440, 900], f"more than one screen: {whole}")
        expect(not browser.js(CUT), f"tables wider than their panel: {browser.js(CUT)}")

    def light():
        browser.scheme("light")
        settle(browser)
        browser.shot(out / "console-1440x900-light.png")
        browser.scheme("dark")

    def phone():
        browser.size(390, 844, phone=True)
        browser.wait("innerWidth === 390")
        settle(browser)
        browser.shot(out / "console-390x844.png")
        browser.shot(out / "console-390-whole.png", whole=True)
        width = browser.js("document.documentElement.scrollWidth")
        expect(width <= 390, f"{width} px wide")
        expect(not browser.js(CUT), f"tables wider than their panel: {browser.js(CUT)}")

    check("one screen at 1440×900", desk)
    check("a light scheme", light)
    check("no horizontal scroll at 390×844", phone)
    browser.size(1440, 900)


def settle(browser):
    """Waits until the layout was drawn and another snapshot came."""
    clock = browser.js("document.querySelector('#clock').textContent")
    browser.wait(f"document.querySelector('#clock').textContent !== {json.dumps(clock)}", 5)
    browser.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def clean(browser, check, base):
    check("no console error or warning", lambda: expect(not browser.log, browser.log[:5]))
    check("no failed request", lambda: expect(not browser.failures, browser.failures[:5]))
    own = urlsplit(base).netloc
    foreign = [url for url in browser.requests.values()
               if urlsplit(url).scheme not in ("data", "about") and urlsplit(url).netloc != own]
    check("no third-party request", lambda: expect(not foreign, foreign[:5]))


def mock_only(browser, check, fake, base, out):
    def stale():
        fake.paused = True
        browser.wait(f"{LIVE} === 'stale' && /^Stale since [0-9:]{{8}} UTC$/.test({SAID})", 8)
        browser.js("new Promise((done) => setTimeout(done, 400))")
        browser.shot(out / "console-stale.png")
        fake.paused = False
        browser.wait(f"{LIVE} === 'live'", 12)

    def wrong():
        browser.click("#token summary")
        browser.click("#token [data-act=forget]")
        browser.click("#token-text")
        browser.type("not-the-token")
        browser.key("Enter", number=13, text="\r")
        browser.wait("document.querySelector('#token [data-role=answer]').dataset.tone === 'bad'", 5)
        expect(not browser.js("document.querySelector('#token').dataset.set"), "a refused token is kept")
        browser.wait(f"{LIVE} === 'live'", 8)

    def panel():
        browser.key("Escape", number=27)
        browser.js("location.hash = 'breaker=trading_bot&symbol=SPY'")
        browser.wait("document.querySelector('#panel [data-role=details]').children.length > 3", 5)
        browser.shot(out / "console-panel.png")
        browser.js("location.hash = ''")

    def closed():
        fake.closed = True
        browser.open(base.replace("/dashboard", "/dashboard?again"))
        browser.wait(f"{LIVE} === 'refused' && document.querySelector('#token').open", 8)
        expect("a token is needed here" in browser.js(SAID), "no reason is given")
        browser.type(mock.TOKEN)
        browser.key("Enter", number=13, text="\r")
        browser.wait(f"{LIVE} === 'live' && !document.querySelector('#token').open", 8)
        browser.wait(f"{TAPE} > 3", 8)
        fake.closed = False

    def empty():
        server, address = mock.serve(mock.Mock(empty=True))
        browser.open(address + "/dashboard")
        browser.wait(f"{LIVE} === 'live'")
        browser.wait("document.querySelector('#routes .empty').textContent.startsWith('No route')")
        browser.shot(out / "console-empty.png")
        server.mock.stopped = True

    check("a stopped stream says since when, and recovers", stale)
    check("a refused token is said and not kept", wrong)
    check("the address opens panel and symbol", panel)
    check("a port that reads only with a token asks for it", closed)
    check("a system that knows nothing yet is readable", empty)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--url", help="of the dashboard")
    flags.add_argument("--token", help="with control:write")
    flags.add_argument("--out", type=Path, help="where pictures go; a temporary directory when left out")
    flags.add_argument("--breaker", help="which to force and reset; default: the first listed")
    flags.add_argument("--mock", action="store_true", help="look at mock.py instead")
    flags.add_argument("--chromium", default="/usr/bin/chromium")
    given = flags.parse_args()
    if not given.mock and not (given.url and given.token):
        flags.error("--url and --token, or --mock")
    out = given.out or Path(tempfile.mkdtemp(prefix="sluice-console-out-"))
    out.mkdir(parents=True, exist_ok=True)
    url, token, fake = given.url, given.token, None
    if given.mock:
        fake = mock.Mock()
        _, base = mock.serve(fake)
        url, token = base + "/dashboard", mock.TOKEN

    check, started = Checks(), time.monotonic()
    browser = Browser(given.chromium)
    try:
        browser.size(1440, 900)
        browser.scheme("dark")
        browser.open(url)
        see(browser, check, url)
        keyboard(browser, check)
        first = "document.querySelector('[data-breaker]:not([hidden])')?.dataset.breaker"
        name = given.breaker or browser.wait(first, 5)
        breaker(browser, check, token, name)
        kill(browser, check)
        modules(browser, check)
        sizes(browser, check, out)
        clean(browser, check, url)
        if fake:
            mock_only(browser, check, fake, url, out)
    finally:
        browser.close()
    print(f"pictures in {out}, {time.monotonic() - started:.1f} s")
    print(f"console: {check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
