"""A headless Chromium driven by the DevTools protocol over its own pipe: no port, no websocket, no package."""

import base64
import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
import time

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-default-browser-check", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe", "--window-size=1440,900",
]


class BrowserError(Exception):
    """The browser did not start, refused a command, or a script in the page threw."""


class Browser:
    """One browser, one page. Collects what the page logs and requests."""

    def __init__(self, binary="/usr/bin/chromium"):
        self.profile = tempfile.mkdtemp(prefix="sluice-console-")
        to_read, self.writer = high_pipe()
        self.reader, to_write = high_pipe()
        quiet = os.open(os.devnull, os.O_WRONLY)
        # Output first: `quiet` may itself be descriptor 3 or 4.
        ends = [(quiet, 1), (quiet, 2), (to_read, 3), (to_write, 4)]
        actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ends]
        arguments = [binary, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self.pid = os.posix_spawn(binary, arguments, os.environ, file_actions=actions, setpgroup=0)
        for descriptor in (to_read, to_write, quiet):
            os.close(descriptor)
        self.answers, self.number, self.session = {}, 0, None
        self.log, self.requests, self.failures = [], {}, []
        self.arrived = threading.Condition()
        self.closed = False
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            self.attach()
        except BrowserError:
            self.close()
            raise

    def attach(self):
        """Opens the page and turns on what is collected of it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def listen(self):
        rest = b""
        while piece := os.read(self.reader, 1 << 16):
            *whole, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, whole):
                with self.arrived:
                    if "id" in message:
                        self.answers[message["id"]] = message
                    else:
                        self.notice(message["method"], message.get("params", {}))
                    self.arrived.notify_all()
        with self.arrived:
            self.closed = True
            self.arrived.notify_all()

    def notice(self, method, params):
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            words = " ".join(str(value.get("value", value.get("description"))) for value in params["args"])
            self.log.append(f"console.{params['type']}: {words}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.log.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.log.append(f"{entry['source']} {entry['level']}: {entry['text']} {entry.get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests[params["requestId"]] = params["request"]["url"]
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            self.failures.append(f"{params['response']['status']} {params['response']['url']}")
        elif method == "Network.loadingFailed" and not params.get("canceled"):
            self.failures.append(f"{params['errorText']} {self.requests.get(params['requestId'], '?')}")

    def call(self, method, **params):
        """One command; its result."""
        with self.arrived:
            self.number += 1
            mine = self.number
        message = {"id": mine, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        with self.arrived:
            self.arrived.wait_for(lambda: mine in self.answers or self.closed, timeout=30)
            answer = self.answers.pop(mine, None)
        if answer is None:
            raise BrowserError(f"no answer to {method}; is {FLAGS[0]} supported and the browser installed?")
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def js(self, expression):
        """The value of an expression in the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def wait(self, expression, seconds=15):
        """Waits until the expression is truthy; answers its value, or raises with the last one."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.js(expression)
            if value:
                return value
            if time.monotonic() > deadline:
                raise BrowserError(f"still {value!r} after {seconds} s: {expression}")
            time.sleep(0.1)

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def place(self, selector, across=0.5, down=0.5):
        """A point of the element, scrolled into view."""
        return self.js(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: "nearest"}});
            const box = node.getBoundingClientRect();
            return [box.x + box.width * {across}, box.y + box.height * {down}];
        }})()""")

    def click(self, selector):
        """A real press and release in the middle of the element."""
        x, y = self.place(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def key(self, key, code=None, number=0, text=None):
        extra = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key,
                      windowsVirtualKeyCode=number, **(extra if kind == "keyDown" else {}))

    def type(self, text):
        self.call("Input.insertText", text=text)

    def shot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """Ends the browser this object started, its process group only, and removes its profile."""
        try:
            os.close(self.writer)
            os.killpg(self.pid, signal.SIGTERM)
            deadline = time.monotonic() + 5
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.killpg(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    break
                time.sleep(0.05)
        except (ProcessLookupError, ChildProcessError):
            pass
        shutil.rmtree(self.profile, ignore_errors=True)


def high_pipe():
    """A pipe whose descriptors stay clear of 3 and 4, which the browser expects as its own."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends]
    for end in ends:
        os.close(end)
    return high
