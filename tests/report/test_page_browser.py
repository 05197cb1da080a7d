"""The page in a real browser: headless Chromium, driven through its debugging pipe."""

import base64
import fcntl
import io
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from ldm_privacy.report.figures.forest import forest_figure
from ldm_privacy.report.page.blocks import Answer, Head
from ldm_privacy.report.page.page import write_page
from ldm_privacy.report.sections.forest import forest as forest_section
from ldm_privacy.types import Estimate
from tests.report.test_forest import CALIBRATED, CONTROLS, evidence_of
from tests.report.test_page import HOSTILE, hostile_page, sample_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
DEADLINE = 30
CHANCE = Estimate(0.5, 0.45, 0.55)
# The browser reads commands from descriptor 3 and answers on 4, whatever numbers the pipes have here.
LAUNCH = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"


class Browser:
    """One tab of a headless Chromium. What the page logs, asks for or throws is kept in `events`."""

    def __init__(self, profile):
        pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (*os.pipe(), *os.pipe())]
        commands, self._write, self._read, answers = pipes
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", LAUNCH, str(commands), str(answers), CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._count, self._session, self.events = b"", 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == self._count)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return answer["result"]

    def open(self, path, *, width=1280, dark=False):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", media="screen", features=scheme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        if not self.of_kind("Page.loadEventFired"):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, expression):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, *, whole=False):
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        return base64.b64decode(data)

    def of_kind(self, *methods):
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self):
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._write)
            os.close(self._read)

    def _until(self, wanted):
        end = time.monotonic() + DEADLINE
        while True:
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert select.select([self._read], [], [], max(0, end - time.monotonic()))[0], "the browser doesn't answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path: chromium, chromium-browser or google-chrome")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(sample_page(), path)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    write_page(hostile_page(), path)
    return path


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    """As much as the digits run has: three attacks with six masks, four calibrations, a verdict of as many words."""
    masks = ("all", "top60", "random60", "low60", "std60", "top30")
    calibrated, controls = CALIBRATED | {"sima_calibrated": True, "combined": True}, CONTROLS | dict.fromkeys("abc", CHANCE)
    evidence = evidence_of(attacks=("sima", "loss", "pia"), masks=masks, controls=controls, calibrated=calibrated)
    section = forest_section(SimpleNamespace(evidence=evidence, figures={"forest": forest_figure(evidence)}))
    path, page = tmp_path_factory.mktemp("forest") / "report.html", sample_page()
    found = page.head.verdict._replace(sentences=tuple("word " * count for count in (24, 56)))
    doubts = Answer(("word " * 56, "word " * 20), ("forest",))
    head = Head(Answer(("word " * 30,)), Answer(("word " * 30,)), found, doubts, Answer(("word " * 15, "word " * 10)))
    write_page(page._replace(head=head, sections={"forest": section, **page.sections}), path)
    return path


TROUBLE = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed")

# The colour of every text, and of the ground behind it, as the browser computes them.
COLOURS = """
(() => {
  const found = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    if (!walker.currentNode.data.trim()) continue;
    const holder = walker.currentNode.parentElement, style = getComputedStyle(holder);
    const colour = element => getComputedStyle(element).backgroundColor;
    let ground = holder;
    while (ground.parentElement && colour(ground) === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
    found.add([style.color, colour(ground)].join('|'));
  }
  return [...found].map(pair => pair.split('|'));
})()
"""


def luminance(colour):
    """Relative luminance of a computed CSS colour (WCAG 2.2)."""
    parts = [float(number) for number in re.findall(r"[\d.]+", colour)][:3]
    parts = parts if colour.startswith("color(srgb") else [part / 255 for part in parts]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def requested(browser):
    return [event["request"]["url"] for event in browser.of_kind("Network.requestWillBeSent")]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_opens_without_a_complaint_or_a_request(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    assert browser.of_kind(*TROUBLE) == []
    assert [url for url in requested(browser) if not url.startswith("data:")] == [report.as_uri()]
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


UNFOLD = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.mark.parametrize("width", [320, 390, 800, 1280, 1920])
def test_the_page_never_scrolls_sideways(browser, report, hostile, width):
    for path in (report, hostile):
        browser.open(path, width=width)
        browser.evaluate(UNFOLD)
        assert browser.evaluate("innerWidth") == width
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        tables = "[...document.querySelectorAll('.scroll:has(table)')].map(box => box.scrollWidth > box.clientWidth)"
        assert any(browser.evaluate(tables)) or width > 800


def test_names_of_rows_stay_in_view(browser, report):
    browser.open(report, width=390)
    browser.evaluate(UNFOLD)
    browser.evaluate("document.querySelector('.scroll').scrollLeft = 300")
    left = (
        "['.scroll', '.scroll tbody th', '.scroll td'].map(name => document.querySelector(name).getBoundingClientRect().left)"
    )
    box, row_name, cell = browser.evaluate(left)
    assert row_name == pytest.approx(box, abs=1)
    assert cell < box - 100


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_text_stands_out_from_its_ground(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    pairs = browser.evaluate(COLOURS)
    assert len(pairs) > 6
    assert min(contrast(*pair) for pair in pairs) >= 4.5, [pair for pair in pairs if contrast(*pair) < 4.5]
    page = np.asarray(PIL.Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert page.shape[1] == width
    assert (np.median(page) < 60) if dark else (np.median(page) > 200)


def test_texts_are_never_run(browser, hostile):
    browser.open(hostile)
    assert browser.evaluate("document.title").startswith("Title <script>")
    assert browser.evaluate("document.querySelectorAll('script, [onerror], img[src=x]').length") == 0
    assert browser.of_kind(*TROUBLE) == []
    assert HOSTILE in browser.evaluate("document.querySelector('.picture img').alt")


def test_the_policy_stops_what_slipped_in(browser, report, tmp_path):
    path = tmp_path / "report.html"
    hole = HOSTILE + '<img src="http://127.0.0.1:9/x.png"><link rel="stylesheet" href="http://127.0.0.1:9/x.css">'
    path.write_text(report.read_text(encoding="utf-8").replace("<main", hole + "<main", 1), encoding="utf-8")
    browser.open(path)
    assert browser.evaluate("document.title") != "run"
    assert len([event for event in browser.of_kind("Log.entryAdded") if event["entry"]["source"] == "security"]) >= 4
    blocked = {event.get("blockedReason") for event in browser.of_kind("Network.loadingFailed")}
    assert blocked <= {"csp"}


def test_tables_and_files_are_folded_on_the_screen_and_open_in_print(browser, report):
    browser.open(report)
    held = "each.querySelector('table, pre').offsetHeight"
    seen = f"[...document.querySelectorAll('details')].map(each => each.offsetHeight > {held})"
    assert browser.evaluate(seen) == [False, False]
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(seen) == [True, True]


def test_the_answers_are_the_first_screen_and_the_forest_half_of_the_next(browser, forest):
    browser.open(forest)
    names = ".tested", ".subject", ".verdict", ".doubts", ".advice", "#forest img", "nav"
    seen = f"{[*names]}.map(name => document.querySelector(name).getBoundingClientRect())"
    ends = f"{seen}.map(box => [box.top, box.bottom, box.left, box.right])"
    *answers, picture, _ = browser.evaluate(ends)
    assert sorted(answers, key=lambda box: (box[0], box[2])) == answers, "they are read in this order"
    assert max(bottom for _, bottom, _, _ in answers) <= min(800, picture[0])
    assert picture[1] <= 1200
    browser.open(forest, width=390)
    *answers, picture, contents = browser.evaluate(ends)
    assert all(above[1] <= below[0] for above, below in itertools.pairwise([*answers, picture, contents]))
    assert 0 <= picture[2] < picture[3] <= 390, "it fits"
    assert browser.evaluate("(i => i.currentSrc !== i.src)(document.querySelector('#forest img'))")


def test_a_phone_shows_every_picture_whole(browser, report):
    browser.open(report, width=390)
    sizes = (
        "[...document.querySelectorAll('.picture img')].map(i => [i.clientWidth, i.parentElement.closest('figure').clientWidth"
    )
    pictures = browser.evaluate(f"{sizes}, i.currentSrc !== i.src])")
    assert all(0 < width <= room for width, room, _ in pictures)
    assert [own for *_, own in pictures] == [True, True, False, False], "but images are scaled"


def test_a_name_leads_to_its_sentence(browser, report):
    browser.open(report)
    browser.evaluate("document.querySelector('.verdict a.term').click()")
    target = "document.querySelector(':target')"
    assert browser.evaluate(f"{target}.querySelector('dt').textContent") == "outsider"
    box = browser.evaluate(f"(b => [b.top, b.bottom])({target}.getBoundingClientRect())")
    assert 0 <= box[0] < box[1] <= 900


def test_prints_on_a4_and_white_even_where_the_screen_is_dark(browser, report):
    browser.open(report, dark=True)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.send("Emulation.setEmulatedMedia", media="print", features=dark)
    assert luminance(browser.evaluate("getComputedStyle(document.body).backgroundColor")) == 1
    assert min(contrast(*pair) for pair in browser.evaluate(COLOURS) if pair[1] != "rgba(0, 0, 0, 0)") >= 4.5
    document = base64.b64decode(browser.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", document)
    assert 3 <= len(boxes) <= 8
    assert all((round(float(width)), round(float(height))) == (595, 842) for width, height in boxes)
