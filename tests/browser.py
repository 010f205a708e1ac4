"""A real browser over the rendered site: what a checker of HTML cannot see.

    python tests/browser.py                               # renders the site without Quarto, and looks at every page
    python tests/browser.py --site _docs --only results/  # pages of a site that is there
    python tests/browser.py --site _docs --only index.html --shots shots   # and keeps a picture of each at every width
    python tests/browser.py --axe axe-core/axe.min.js     # with the accessibility rules of axe-core (npm pack axe-core)

Every page is opened by http and as a file, at 390, 768 and 1400 px, light and dark, and as it is printed. A fault is
a request to another server or one that fails, an error in the console, an id given twice, a link within the page that
leads nowhere, a picture that does not load or has no alt text or no size, a formula that MathJax refuses, a page wider
than the window, a line cut on paper, a dark ground or a menu there, and what axe-core calls serious or critical. It
needs Chromium and websocket-client (JupyterLab brings it); `test_browser.py` looks at a handful of pages in every test
run where Chromium is there.
"""

import argparse
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WIDTHS = (390, 768, 1400)
THEMES = ("light", "dark")
PAPER = 718  # px of a line on A4 between the margins that browsers leave
PATIENCE = 60  # seconds for one page

# What is asked of a page once it is there; every answer is a list of sentences.
LOOK = """(() => {
  const faults = [], say = text => faults.push(text), short = text => text.length > 80 ? text.slice(0, 80) + '…' : text;
  const ids = {};
  for (const el of document.querySelectorAll('[id]')) ids[el.id] = (ids[el.id] || 0) + 1;
  for (const id in ids) if (ids[id] > 1) say(`the id “${id}” is given ${ids[id]} times`);
  for (const a of document.querySelectorAll('a[href^="#"]')) {
    const id = decodeURIComponent(a.getAttribute('href').slice(1));
    if (id && id !== 'top' && !document.getElementById(id)) say(`a link to #${id} leads nowhere`);
  }
  for (const img of document.querySelectorAll('img')) {
    const name = short(img.getAttribute('src') || '');
    if (img.complete && img.src && !img.naturalWidth) say(`the picture ${name} does not load`);
    if (!img.hasAttribute('alt')) say(`the picture ${name} has no alt text`);
    if (!img.hasAttribute('width') || !img.hasAttribute('height')) say(`the picture ${name} has no width and height`);
  }
  for (const el of document.querySelectorAll('mjx-merror, [data-mjx-error]')) say('a formula fails: ' + short(el.textContent));
  if (document.querySelectorAll('h1').length !== 1) say(`it has ${document.querySelectorAll('h1').length} headings of the first level`);
  return faults;
})()"""  # noqa: E501

WIDE = """(() => {
  const room = document.documentElement.clientWidth, over = document.documentElement.scrollWidth - room;
  if (over <= 0) return [];
  const scrolls = el => { for (let e = el.parentElement; e && e !== document.body; e = e.parentElement)
    if (getComputedStyle(e).overflowX !== 'visible') return true; return false; };
  const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > room + 1 && !scrolls(e));
  const names = wide.slice(0, 3).map(e => e.tagName.toLowerCase() + (e.className && e.className.baseVal === undefined ? '.' + e.className : ''));
  return [`it scrolls sideways by ${over} px (${names.join(', ')})`];
})()"""  # noqa: E501

# What is wrong on paper, where nothing scrolls and nothing can be clicked
PRINTED = """(() => {
  const faults = [], named = e => e.tagName.toLowerCase() + (e.classList.length ? '.' + e.classList[0] : '');
  for (const el of document.querySelectorAll('main *')) {
    if (el.clientWidth < 2 || el.closest('mjx-assistive-mml') || getComputedStyle(el).overflowX === 'visible') continue;
    const over = el.scrollWidth - el.clientWidth;
    if (over > 2) faults.push(`${named(el)} is cut by ${over} px: ${el.textContent.trim().slice(0, 60)}`);
  }
  for (const menu of document.querySelectorAll('header.top, #quarto-header, nav, aside.toc')) if (menu.checkVisibility()) faults.push(`${named(menu)} is there`);
  const ground = getComputedStyle(document.body).backgroundColor;
  if (!['rgb(255, 255, 255)', 'rgba(0, 0, 0, 0)'].includes(ground)) faults.push(`the ground is ${ground}`);
  return faults;
})()"""  # noqa: E501

READY = """new Promise(done => {
  const formulas = () => window.MathJax && MathJax.startup && MathJax.startup.promise ? MathJax.startup.promise.then(() => done(1)) : done(1);
  document.readyState === 'complete' ? formulas() : addEventListener('load', formulas);
})"""  # noqa: E501

# A page hears of its new size when the next frame is drawn
FRAME = "new Promise(done => { requestAnimationFrame(() => setTimeout(done)); setTimeout(done, 500); })"

# The colours of a theme are there once its sheets are, and once what fades has faded
SETTLED = """(async () => {
  const waiting = () => document.getAnimations().length || [...document.querySelectorAll('link[rel=stylesheet]')].some(link => !link.sheet);
  for (const end = performance.now() + 5000; waiting() && performance.now() < end;) await new Promise(done => setTimeout(done, 20));
})()"""  # noqa: E501

AXE = """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations
  .filter(v => v.impact === 'serious' || v.impact === 'critical')
  .map(v => `axe: ${v.id}, ${v.nodes.length} times (${v.help}), first ${v.nodes[0].target.join(' ').slice(0, 120)}`
            + (v.id === 'color-contrast' ? ': ' + v.nodes[0].any.map(a => a.message).join('; ').slice(0, 160) : '')))"""


class Browser:
    "Chromium without a window, driven by its DevTools protocol; a context manager"

    def __init__(self, program: str | None = None):
        self.program = program or find_chromium()
        self.events, self.count = [], 0

    def __enter__(self):
        import websocket

        self.folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={self.folder.name}"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
        self.process = subprocess.Popen(
            [self.program, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        note, end = Path(self.folder.name) / "DevToolsActivePort", time.monotonic() + PATIENCE
        while not (note.is_file() and note.read_text().strip()):
            if time.monotonic() > end or self.process.poll() is not None:
                self.__exit__()
                raise RuntimeError(f"{self.program} did not start; run it by hand to see why.")
            time.sleep(0.05)
        port = note.read_text().split()[0]
        new = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        address = json.load(urllib.request.urlopen(new))["webSocketDebuggerUrl"]
        self.socket = websocket.create_connection(address, timeout=PATIENCE, http_no_proxy=["127.0.0.1"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        if getattr(self, "socket", None):
            self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()

    def call(self, method: str, **parameters) -> dict:
        "One command of the protocol; events that arrive in the meantime are kept"
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.count:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error'].get('message')}")
                return message.get("result", {})
            self.events.append(message)

    def run(self, script: str):
        "The value of an expression in the page; promises are waited for"
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"a script of the check fails: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        "Go to a page and wait until its formulas are set"
        self.events.clear()
        self.call("Page.navigate", url=address)
        end = time.monotonic() + PATIENCE
        while self.run("location.href.split('#')[0]") != address.split("#")[0]:
            if time.monotonic() > end:
                raise RuntimeError(f"{address} does not open")
            time.sleep(0.02)
        self.run(READY)

    def resize(self, width: int, height: int = 900) -> None:
        "The window of a phone or of a desk"
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.run(FRAME)

    def theme(self, name: str) -> None:
        "The site in light or dark, as its button sets it"
        self.run(f"document.documentElement.dataset.theme = {name!r}; 1")
        is_dark = "document.body.classList.contains('quarto-dark')"
        if self.run(f"!!window.quartoToggleColorScheme && {is_dark} !== {json.dumps(name == 'dark')}"):
            self.run("quartoToggleColorScheme(); 1")
        self.run(SETTLED)

    def media(self, name: str) -> None:
        "How the page is shown: 'screen' or 'print'"
        self.call("Emulation.setEmulatedMedia", media=name)

    def picture(self, file: Path, whole: bool = False, most: int = 6000) -> None:
        "A picture of the window, or of the whole page down to `most` pixels"
        options = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most), "scale": 1}
            options = {"clip": clip, "captureBeyondViewport": True}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))

    def key(self, name: str, code: int = 0, text: str = "") -> None:
        "Press a key"
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **extra)


def find_chromium() -> str | None:
    "The program, or None where there is none"
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if shutil.which(name):
            return shutil.which(name)
    return None


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Server:
    "A folder by http on a free port of this machine; a context manager that gives its address"

    def __init__(self, folder: Path):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def _event_faults(events: list[dict], base: str) -> list[str]:
    "What went wrong while a page was loaded"
    faults, addresses = [], {}
    for event in events:
        what, told = event.get("method"), event.get("params", {})
        if what == "Network.requestWillBeSent":
            address = addresses[told["requestId"]] = told["request"]["url"]
            if not address.startswith((base, "data:", "blob:")):
                faults.append(f"it asks for {address[:100]}, outside the site")
        elif what == "Network.responseReceived" and told["response"]["status"] >= 400:
            faults.append(f"{told['response']['url'][:100]} answers {told['response']['status']}")
        elif what == "Network.loadingFailed" and not told.get("canceled"):
            faults.append(f"{addresses.get(told['requestId'], 'a file')[:100]} does not load: {told.get('errorText')}")
        elif what == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            faults.append("a script fails: " + details.get("exception", {}).get("description", details["text"])[:200])
        elif what == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            words = " ".join(str(a.get("value", a.get("description", ""))) for a in told["args"])
            faults.append(f"the console has an {told['type']}: {words[:200]}")
        elif what == "Log.entryAdded" and told["entry"]["level"] == "error":
            faults.append(f"the console has an error: {told['entry']['text'][:200]}")
    return faults


def look_at(
    browser: Browser,
    base: str,  # address of the site, with a slash at its end
    page: str,  # a page, seen from there
    axe: str = "",  # source of axe-core; empty: without it
    shots: Path | None = None,  # where pictures go
) -> list[str]:  # faults, one sentence each
    "Everything that is wrong with one page"
    browser.resize(WIDTHS[-1])
    browser.open(base + page)
    faults = browser.run(LOOK)
    if axe:
        browser.run(axe + "; 1")
    for width in WIDTHS:
        browser.resize(width)
        faults += [f"at {width} px {fault}" for fault in browser.run(WIDE)]
        for theme in THEMES:
            browser.theme(theme)
            if axe and width != 768:
                faults += [f"{theme}, {width} px: {fault}" for fault in browser.run(AXE)]
            if shots:
                browser.picture(shots / f"{page.replace('/', '-').removesuffix('.html')}-{width}-{theme}.png", True)
    browser.run("addEventListener('resize', event => event.stopImmediatePropagation(), true); 1")  # none comes on paper
    browser.media("print")
    browser.resize(PAPER)
    faults += [f"printed in the {THEMES[-1]} theme: {fault}" for fault in browser.run(PRINTED)]
    browser.media("screen")
    return list(dict.fromkeys(faults + _event_faults(browser.events, base)))


def look_at_site(
    site: Path,  # a rendered site
    pages: list[str],  # its pages
    by: tuple[str, ...] = ("http", "file"),
    axe: str = "",
    shots: Path | None = None,
    say=lambda text: None,
) -> list[str]:  # faults, one sentence each, with the page
    "Everything that is wrong with some pages, served and as files"
    faults = []
    with Browser() as browser, Server(site) as address:
        bases = {"http": address, "file": Path(site).resolve().as_uri() + "/"}
        for page in pages:
            for way in by:
                first = way == by[0]  # pictures and axe-core once: they do not depend on where the page comes from
                found = look_at(browser, bases[way], page, axe if first else "", shots if first else None)
                faults += [f"{page} ({way}): {fault}" for fault in found]
                for fault in found:
                    say(f"{page} ({way}): {fault}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, help="a rendered site; rendered anew, without Quarto, when left out")
    parser.add_argument("--only", nargs="*", default=[""], help="pages whose address begins so")
    parser.add_argument("--by", nargs="*", default=["http", "file"], choices=["http", "file"])
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of every page at every width")
    asked = parser.parse_args()
    if find_chromium() is None:
        print("Chromium is not installed: the site cannot be looked at.")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        site = asked.site
        if site is None:
            from bayesbinn_nb.site.build import build_site

            site = build_site(Path(folder) / "site", use="nbconvert").parent
        every = sorted(file.relative_to(site).as_posix() for file in site.rglob("*.html"))
        pages = [page for page in every if page.startswith(tuple(asked.only))]
        axe = asked.axe.read_text() if asked.axe else ""
        start = time.perf_counter()
        faults = look_at_site(site, pages, tuple(asked.by), axe, asked.shots, say=lambda text: print(text, flush=True))
    print(f"{len(pages)} pages, {len(faults)} faults, {time.perf_counter() - start:.0f} s")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
