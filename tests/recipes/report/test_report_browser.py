"""The page in a real browser: it works, it is quiet, it asks nothing of the network. Skipped where there is no Chromium or Selenium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invented_experiments import HOSTILE, LONG, METHODS, QUOTES, write_experiment

from alignmamba.recipes.report.rendering import write_page

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver on the path")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
DESK = {"width": 1100, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    hostile = write_experiment(
        root / "hostile", hostile=True, rows=("alignmamba", HOSTILE, LONG, QUOTES), plan_lengths=(30, 9), failed=[3], pending=[6]
    )
    numbers = write_experiment(
        root / "numbers", kind="regression", rows=METHODS[:1], columns=["0.1", "0.2"], seeds=1, samples=240, experiment="missing"
    )
    return {path.name: write_page(path).path for path in (hostile, numbers)}


class Shown:
    """A page in the browser, which must have been quiet when it is left."""

    def __init__(self, browser: Any, path: Path, screen: dict[str, Any]) -> None:
        self.browser = browser
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get("about:blank")
        browser.get_log("performance")  # what the browser's own first page loaded is not ours
        browser.get(path.as_uri())

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        if kind is None:
            assert messages == []
            assert asked
            assert all(url.startswith(("file:", "data:")) for url in asked), asked

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).get_property("textContent"))

    def texts(self, selector: str) -> list[str]:
        """Of all at once: one question to the browser, not one per element."""
        found: list[str] = self.browser.execute_script(
            "return Array.from(document.querySelectorAll(arguments[0]), (each) => each.textContent)", selector
        )
        return found

    def choose(self, selector: str, place: int) -> None:
        self.browser.execute_script(
            "arguments[0].selectedIndex = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", self.one(selector), place
        )

    def press(self, *keys: str) -> None:
        actions = webdriver.ActionChains(self.browser, duration=0)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def point_at(self, element: Any) -> None:
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        webdriver.ActionChains(self.browser, duration=0).move_to_element(element).perform()


def test_the_viewer_of_plans(browser: Any, pages: dict[str, Path]) -> None:
    keys = webdriver.Keys
    with Shown(browser, pages["hostile"], DESK) as page:
        plans = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))["plans"]
        page.choose("#plan-sample", 1)
        sample = plans[0]["samples"][1]
        audio, video = sample["sources"]
        assert sample["id"] in page.text("#plan-facts")
        assert page.text("#plan-line") == "Choose a token."
        lanes = page.all("#plan-lanes [role=listbox]")
        assert [lane.get_attribute("aria-label") for lane in lanes] == [
            "audio tokens, source",
            "text tokens, anchor",
            "video tokens, source",
            "text tokens, anchor",
        ]

        # By keyboard: the Tab key reaches the first token of a lane, arrows walk on.
        page.one("#plan-sample").click()
        page.press(keys.ESCAPE, keys.TAB)
        while page.browser.switch_to.active_element.get_attribute("role") != "option":
            page.press(keys.TAB)
        assert page.text("#plan-line") == "audio token 0 (0.00 s) → nothing in text"
        page.press(*[keys.ARROW_RIGHT] * 12)
        match = audio["index"][12]
        told = page.text("#plan-line")
        assert told.startswith(f"audio token 12 (0.48 s) → text token {match} '{sample['anchor']['tokens'][match]}', similarity ")
        assert float(told.rpartition(" ")[2].replace("−", "-")) == pytest.approx(audio["similarity"][12], abs=0.006)
        assert len(page.all("#plan-lanes .link.on")) == 1
        page.press(keys.ARROW_DOWN)
        taken = [place for place, other in enumerate(audio["index"]) if other == match]
        assert page.text("#plan-line").startswith(f"text token {match} '{sample['anchor']['tokens'][match]}' ← audio tokens {taken[0]} (")
        assert len(page.all("#plan-lanes .link.on")) == len(page.all("#plan-lanes .token.match")) == len(taken) > 1
        page.press(keys.HOME)
        assert page.text("#plan-line").startswith("text token 0 ")

        # By pointing and by tapping, in the other lanes.
        anchor = page.all("#plan-lanes .lanes:nth-of-type(2) .token[data-kind=anchor]")[4]
        page.point_at(anchor)
        told = page.text("#plan-line")
        assert f" ← video token {video['index'][4]}, similarity " in told
        assert browser.switch_to.active_element.get_attribute("data-place") == "0"
        anchor.click()
        assert browser.switch_to.active_element.get_attribute("data-place") == "4"
        assert page.text("#plan-line") == told


def test_samples_are_sorted_searched_and_sifted(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK) as page:
        data = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))["samples"]
        pairs = list(zip(data["sets"][0]["targets"], data["cells"][0]["prediction"], strict=True))
        wrong = sum(target != prediction for target, prediction in pairs)
        rows = "#sample-table tbody tr"
        assert len(page.all(rows)) == 12
        page.one("#sample-wrong").click()
        assert 0 < wrong < 12
        assert page.texts(f"{rows} td:last-child") == ["wrong"] * wrong
        assert page.text("#sample-count") == f"{wrong} of 12 samples"
        page.one("#sample-wrong").click()
        buttons = page.all("#sample-table thead button")
        assert [button.text for button in buttons] == ["id", "target", "prediction", "result"]
        buttons[3].click()
        assert page.texts(f"{rows} td:last-child") == ["correct"] * (12 - wrong) + ["wrong"] * wrong
        assert page.one("#sample-table th:last-child").get_attribute("aria-sort") == "ascending"
        buttons[3].click()
        assert page.texts(f"{rows} td:last-child")[0] == "wrong"
        assert page.one("#sample-table th:last-child").get_attribute("aria-sort") == "descending"
        buttons[0].click()
        assert len(page.all("#sample-table [aria-sort]")) == 1
        page.one("#sample-search").send_keys("X^2$-")
        assert page.texts(f"{rows} th") == [f"{QUOTES}-2", f"{QUOTES}-7"]


def test_numbers_are_sorted_as_numbers(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["numbers"], DESK) as page:
        rows = "#sample-table tbody tr"
        assert page.text("#sample-count") == "240 samples, the first 100 shown"
        page.one("#sample-more").click()
        assert page.text("#sample-count") == "240 samples"
        page.all("#sample-table thead button")[1].click()
        targets = [float(text) for text in page.texts(f"{rows} td:nth-child(2)")]
        assert targets == sorted(targets)
        assert len(targets) == 240
        page.one("#sample-wrong").click()
        pairs = zip(page.texts(f"{rows} td:nth-child(2)"), page.texts(f"{rows} td:nth-child(3)"), strict=True)
        assert all(float(target) * float(prediction) < 0 for target, prediction in pairs)
        page.choose("#sample-run", 1)
        assert page.text("#sample-table caption") == "alignmamba, 20% missing, seed 0, test"
        assert set(page.texts(f"{rows} td:last-child")) == {"", "audio"}


def test_confusion_of_each_seed_and_of_all(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK) as page:
        first = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))["confusions"][0]

        def shown() -> list[list[int]]:
            values = page.browser.execute_script(
                "return Array.from(document.querySelectorAll('#confusion-table tbody tr'), (row) =>"
                " Array.from(row.querySelectorAll('td:not(.sum)'), (cell) => Number(cell.firstChild.textContent)))"
            )
            assert isinstance(values, list)
            return values

        together = [
            [a + b for a, b in zip(*lines, strict=True)] for lines in zip(*(cell["counts"] for cell in first["cells"]), strict=True)
        ]
        assert shown() == together
        page.choose("#confusion-seed", 2)
        assert shown() == first["cells"][1]["counts"]
        assert page.text("#confusion-table caption").startswith("alignmamba, seed 1")
        page.choose("#confusion-row", 1)
        assert page.text("#confusion-table caption").startswith(f"{HOSTILE}, seed 0")


@pytest.mark.parametrize("name", ["hostile", "numbers"])
def test_a_phone_shows_it_whole(browser: Any, pages: dict[str, Path], name: str) -> None:
    with Shown(browser, pages[name], PHONE) as page:
        width, seen = page.browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width == seen == 360


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgb(colour, under) {
  canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function light(parts) {
  const [r, g, b] = parts.map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ratio(a, b) { const [low, high] = [light(a), light(b)].sort((x, y) => x - y); return (high + 0.05) / (low + 0.05); }
function behind(element) {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "white";
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const words = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
  if (!words || element.closest("script, noscript, [hidden], select, .token, .skip") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element), svg = element.namespaceURI.endsWith("svg");
  const under = rgb(behind(element), "white");
  const contrast = ratio(rgb(svg ? style.fill : style.color, behind(element)), under);
  if (contrast < (element.closest("[aria-hidden]") ? 3 : 4.5)) {
    found.push(`${element.tagName}.${element.getAttribute("class")} ${words.slice(0, 20)} ${contrast}`);
  }
}
return [getComputedStyle(document.body).backgroundColor, found];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(browser: Any, pages: dict[str, Path], scheme: str) -> None:
    """The contrast that WCAG AA asks for, as the browser computes the colours."""
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    try:
        with Shown(browser, pages["hostile"], DESK) as page:
            paper, faint = page.browser.execute_script(CONTRAST)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert faint == []
