"""A page in a headless Chromium; tests of pages are skipped where there is no Chromium or Selenium."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver on the path"
)

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


@contextmanager
def started(profile: Path, *flags: str) -> Iterator[Any]:
    """A browser of its own profile, which notes what it asks of a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Shown:
    """A page in the browser, which must have been quiet when it is left."""

    def __init__(
        self,
        browser: Any,
        address: Path | str,
        screen: dict[str, Any],
        *,
        allowed: tuple[str, ...] = ("file:", "data:"),
    ) -> None:
        self.browser, self.allowed = browser, allowed
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get("about:blank")
        browser.get_log("performance")  # what the browser's own first page loaded is not ours
        browser.get(address.as_uri() if isinstance(address, Path) else address)

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        messages = [entry["message"] for entry in self.browser.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        if kind is None:
            assert messages == []
            assert asked
            assert all(url.startswith(self.allowed) for url in asked), asked

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.one(selector).get_property("textContent"))

    def texts(self, selector: str) -> list[str]:
        """Colours of all elements at once: one question to the browser, not one per element."""
        found: list[str] = self.browser.execute_script(
            "return Array.from(document.querySelectorAll(arguments[0]), (each) => each.textContent)", selector
        )
        return found

    def choose(self, selector: str, place: int) -> None:
        self.browser.execute_script(
            "arguments[0].selectedIndex = arguments[1]; arguments[0].dispatchEvent(new Event('change'))",
            self.one(selector),
            place,
        )

    def pick(self, selector: str, value: str) -> None:
        """The choice of that value."""
        self.browser.execute_script(
            "arguments[0].value = arguments[1]; for (const kind of ['input', 'change'])"
            " arguments[0].dispatchEvent(new Event(kind))",
            self.one(selector),
            value,
        )

    def press(self, *keys: str) -> None:
        actions = webdriver.ActionChains(self.browser, duration=0)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def point_at(self, element: Any) -> None:
        self.browser.execute_script(
            "arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element
        )
        webdriver.ActionChains(self.browser, duration=0).move_to_element(element).perform()
