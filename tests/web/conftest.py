"""The real page in a real browser, on a real ComfyUI server with the tiny model."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from testkit.tiny_host import find_host
from tools.comfyui.server import ComfyServer

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "runs" / "web"  # screenshots, to be looked at
NEWER = "1.58.1"  # of the page; 0.33's own is older
SECONDS = 600  # a limit that a working page never reaches, even on a slow machine

# what a panel shows, run by run: texts by class name
PANEL = """
const root = app.rootGraph ?? app.graph;
const node = arguments[0].split(':').reduce((at, id) => (at.subgraph ?? at).getNodeById(id), root);
const widget = node.widgets.find((w) => w.name === 'precisecache_panel');
const textOf = (run, selector) => run.querySelector(selector)?.textContent;
return [...widget.element.querySelectorAll('.precisecache-run')].map((run) => ({
    model: textOf(run, '.precisecache-model'),
    state: textOf(run, '.precisecache-state'),
    ...Object.fromEntries(['computed', 'reused', 'trials', 'blocks', 'cache', 'agreement', 'seconds']
        .map((name) => [name, textOf(run, `dl .${name} dd`)])),
    decisions: [...run.querySelectorAll('.precisecache-strip rect:not(.call)')].map((rect) =>
        ({computed: 'C', reused: 'R', unknown: '?'})[rect.getAttribute('class')]
            .repeat(rect.getAttribute('width'))).join(''),
    lfds: run.querySelector('.lfd')?.getAttribute('points').split(' ').length ?? 0,
    plan: textOf(run, '.precisecache-plan') ?? null,
    speedup: textOf(run, '.precisecache-speedup') ?? null,
    hasCurve: !!run.querySelector('.precisecache-curve'),
    hasThreshold: !!run.querySelector('line.threshold'),
    warnings: [...run.querySelectorAll('.precisecache-warning')].map((e) => e.textContent),
}));
"""

# counts the page's requests for the queue and the history, and those whose answers the page has handled
COUNT_QUESTIONS = """
const {api} = window.comfyAPI.api, {fetchApi} = api;
window.asked = window.answered = 0;
api.fetchApi = async function (path, options) {
    if (options?.method || !path.match(/^\\/(queue|history)/)) return fetchApi.apply(this, arguments);
    window.asked++;
    const end = () => setTimeout(() => window.answered++);
    try {
        const answer = await fetchApi.apply(this, arguments);
        const json = answer.json.bind(answer);
        answer.json = () => json().finally(end);
        return answer;
    } catch (error) {
        end();
        throw error;
    }
};
"""

# waits until two frames were drawn and every finite animation has ended
DRAWN = """
new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => Promise.allSettled(
    document.getAnimations().filter((a) => a.effect.getComputedTiming().endTime < Infinity).map((a) => a.finished)))
    .then(() => true)
"""


def ask(server, path, body=None):
    """The server's answer to a GET, or to a POST of a body as JSON; None if the answer is no JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer) if answer.headers.get_content_type() == "application/json" else None


def pytest_collection_modifyitems(items):
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    for item in items if missing else ():
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"no {' and no '.join(missing)} on this machine"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with ComfyServer(find_host(), tmp_path_factory.mktemp("server") / "comfyui.log", cached_nodes=100) as server:
        server.wait()
        yield server


@pytest.fixture(scope="session")
def newer_server(tmp_path_factory):
    """A server with the page of version NEWER."""
    log = tmp_path_factory.mktemp("server") / "newer.log"
    with ComfyServer(find_host(), log, cached_nodes=100, arguments=("--front-end-root", newer_page())) as server:
        server.wait()
        yield server


def newer_page():
    """The folder of the page of version NEWER; it is installed beside the tests' environment if it is not there."""
    base = Path(os.environ.get("PRECISECACHE_PAGES", Path(sys.prefix) / "pages")) / NEWER
    page = base / "comfyui_frontend_package" / "static"
    if not (page / "index.html").is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", base]
        installed = subprocess.run([*command, f"comfyui-frontend-package=={NEWER}"], capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"the page {NEWER} could not be installed: {installed.stderr[-300:]}")
    return str(page)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    downloads = tmp_path_factory.mktemp("downloads")
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "window-size=1500,1000",
    ):
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(SECONDS)
    driver.downloads = downloads
    yield driver
    driver.quit()


@pytest.fixture
def page(server, browser):
    page = Page(server, browser)
    page.prepare()
    page.open()
    yield page
    page.interrupt()
    errors = page.errors()
    assert not errors, errors


class Page:
    """ComfyUI's page in the browser."""

    def __init__(self, server, browser):
        self.server = server
        self.browser = browser

    def prepare(self, locale="en", is_vue=False, palette="dark"):
        """Set the language, the renderer and the colours, and forget earlier runs, before the page is opened."""
        self.set_setting("Comfy.Locale", locale)
        self.set_setting("Comfy.VueNodes.Enabled", is_vue)
        self.set_setting("Comfy.ColorPalette", palette)
        self.set_setting("Comfy.TutorialCompleted", True)  # or a window of templates covers the graph
        self.ask("/history", {"clear": True})  # or the page shows another test's runs of the same graph

    def open(self):
        """Load the page, or load it again."""
        self.browser.get(f"http://{self.server.address}/")
        # the spinner turns until the page has restored the workflows that were open before
        self.wait(
            "app?.extensionManager?.spinner === false && !!window.LiteGraph.registered_node_types.PreciseCacheStats"
        )
        self.js(COUNT_QUESTIONS)

    def wait_for_answers(self):
        """Wait until the server has answered every request of the page and the page has handled every answer."""
        self.wait("window.asked === window.answered")

    def js(self, code, *arguments):
        return self.browser.execute_script(code, *arguments)

    def call(self, code, *arguments):
        """The result of a promise; `code` is an expression that may use `a`, the list of arguments."""
        result = self.browser.execute_async_script(
            "const a = [...arguments], done = a.pop();"
            f"Promise.resolve().then(() => ({code}))"
            ".then(v => done([v ?? null]), e => done([null, `${e?.stack ?? e}`]))",
            *arguments,
        )
        if len(result) > 1:
            raise AssertionError(result[1])
        return result[0]

    def until(self, condition, complaint):
        """Wait for a result of `condition()` that is not false, and return it."""
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, complaint
            time.sleep(0.05)
        return found

    def wait(self, condition, *arguments):
        """Wait for a value of a JavaScript expression that is not false; `a` is the list of arguments."""
        code = f"const a = [...arguments]; const app = window.app; return {condition}"
        return self.until(lambda: self.js(code, *arguments), f"never: {condition}")

    def load(self, graph):
        """Load a graph in API format, as if its file were dropped on the page."""
        self.call("app.loadApiJson(a[0], 'test.json')", graph)
        self.js("app.canvas.ds.scale = 0.8; app.canvas.ds.offset = [20, 60]; app.graph.setDirtyCanvas(true, true)")

    def ask(self, path, body=None):
        return ask(self.server, path, body)

    def prompts(self):
        """The ids of all prompts that wait, run or have ended."""
        queue = ask(self.server, "/queue")
        return {item[1] for items in queue.values() for item in items} | set(ask(self.server, "/history"))

    def queue(self):
        """Queue the graph of the page, as the button does; returns the prompt's id."""
        before = self.prompts()
        self.call("app.queuePrompt(0)")
        (prompt_id,) = self.prompts() - before
        return prompt_id

    def history(self, prompt_id):
        """Wait for the prompt's end and return its entry of the history."""
        found = self.until(lambda: ask(self.server, f"/history/{prompt_id}"), "the prompt never ended")
        return found[prompt_id]

    def report(self, prompt_id, node):
        """The report of a Cache Stats node in the history."""
        return self.history(prompt_id)["outputs"][str(node)]["precisecache"][0]

    def panel(self, node):
        """What the panel of a node shows, run by run: {"state": …, "computed": …, …} as texts."""
        return self.js(PANEL, str(node))

    def picture(self, name):
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.call(DRAWN)
        self.browser.save_screenshot(str(PICTURES / f"{name}.png"))

    def set_setting(self, name, value):
        """Store a setting on the server, for the next time the page loads."""
        ask(self.server, f"/settings/{name}", value)

    def interrupt(self):
        """Stop all prompts that run or wait, and wait until the queue is empty."""
        ask(self.server, "/queue", {"clear": True})
        ask(self.server, "/interrupt", {})
        self.until(lambda: not any(ask(self.server, "/queue").values()), "the queue never emptied")

    def all_errors(self):
        """Every error and warning on the console, since the last call."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def errors(self):
        """The console's messages, since the last call, about our files or about listeners that threw."""
        ours = f"/extensions/{ROOT.name}/", "Uncaught error in", "PreciseCache."
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and any(text in entry["message"] for text in ours)
        ]
