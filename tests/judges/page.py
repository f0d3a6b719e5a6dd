#!/usr/bin/env python3
"""page.py FILE.html [FOLDER]

Judges a page in headless Chromium, driven through chromedriver: at 400 and 1600 px, in light and dark, nothing may be
wider than the window, no text may be cut off, and the console must stay empty. With FOLDER a screenshot of each goes there.
The page's tags must be balanced, and it may need no other file; links lead to a part of it, or to a file that lies with it. Needs /usr/bin/chromium and /usr/bin/chromedriver.
Exit: 0 all is well, 1 something is not.
"""
import base64, html.parser, json, os, re, shutil, socket, subprocess, sys, tempfile, time, urllib.parse, urllib.request

page = os.path.abspath(sys.argv[1])
folder = sys.argv[2] if len(sys.argv) > 2 else None
faults = []


class Tags(html.parser.HTMLParser):
    VOID = {"meta", "link", "br", "img", "hr", "input"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe", "object", "embed"):
            faults.append(f"<{tag}>")
        for name, value in attributes:
            if tag == "a" and name == "href" and not re.match("[a-zA-Z][a-zA-Z0-9+.-]*:|/", value):
                # A part of the page, or a file that lies with it.
                file, _, part = value.partition("#")
                file = os.path.join(os.path.dirname(page), urllib.parse.unquote(file))
                if not os.path.exists(file) or (part and f'id="{part}"' not in text):
                    faults.append(f"a dead link: {value}")
            elif name in ("src", "href", "onclick", "onload"):
                faults.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            faults.append(f"</{tag}> at {self.getpos()}")


text = open(page, encoding="utf-8").read()
tags = Tags()
tags.feed(text)
if tags.open:
    faults.append(f"never closed: {tags.open}")
style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
if re.search(r"url\(|@import", style):
    faults.append("the style names another file")

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
profile = tempfile.mkdtemp()
driver = subprocess.Popen(["/usr/bin/chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)["value"]


def start():
    for _ in range(200):
        try:
            if call("GET", "/status")["ready"]:
                break
        except OSError:
            time.sleep(0.1)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
             f"--user-data-dir={profile}"]
    wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": flags},
              "goog:loggingPrefs": {"browser": "ALL"}}
    return call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]


# What is wider than the window, or wider than its own box.
LOOK = """
const wide = [];
for (const e of document.querySelectorAll('body *')) {
  const box = e.getBoundingClientRect();
  if (box.right > innerWidth + 1 || box.left < -1) wide.push(e.tagName + ' ' + Math.round(box.left) + '..' + Math.round(box.right));
  else if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline' && !(e instanceof SVGElement) && e.clientWidth > 0)
    wide.push(e.tagName + ' holds ' + e.scrollWidth + ' in ' + e.clientWidth);
}
return {width: innerWidth, needed: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
        wide: wide.slice(0, 8), ground: getComputedStyle(document.body).backgroundColor, text: document.body.innerText.length};
"""
try:
    session = f"/session/{start()}"
    cdp = lambda name, parameters: call("POST", f"{session}/goog/cdp/execute", {"cmd": name, "params": parameters})
    grounds = set()
    for width in (400, 1600):
        for scheme in ("light", "dark"):
            cdp("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            cdp("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
            call("POST", f"{session}/url", {"url": f"file://{page}"})
            # also what is folded up
            for unfold in ("", "for (const d of document.querySelectorAll('details')) d.open = true;"):
                seen = call("POST", f"{session}/execute/sync", {"script": unfold + LOOK, "args": []})
                if seen["width"] != width or seen["needed"] > width or seen["wide"] or seen["text"] < 200:
                    faults.append(f"{width} {scheme}: {seen}")
                grounds.add((scheme, seen["ground"]))
                if folder and not unfold:
                    shot = cdp("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {
                        "x": 0, "y": 0, "width": width, "height": min(seen["height"], 9000), "scale": 1}})
                    with open(os.path.join(folder, f"{width}-{scheme}.png"), "wb") as out:
                        out.write(base64.b64decode(shot["data"]))
    if len(grounds) != 2 or len({ground for _, ground in grounds}) != 2:
        faults.append(f"light and dark look alike: {grounds}")
    faults += [f"console: {entry['message']}" for entry in call("POST", f"{session}/se/log", {"type": "browser"})]
    call("DELETE", session)
finally:
    driver.terminate()
    driver.wait()
    shutil.rmtree(profile, ignore_errors=True)
print("\n".join(faults) or "well")
sys.exit(1 if faults else 0)
