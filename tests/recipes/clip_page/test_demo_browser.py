"""The demo in a real browser: a clip is chosen, dropped or recorded, and its page appears."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_clip_page_browser import wait
from test_clip_server import demo

from chromium import DESK, NEEDS_BROWSER, PHONE, Shown, started
from clip_runs import ClipRuns

pytestmark = NEEDS_BROWSER

DROP = """
const holder = new DataTransfer();
holder.items.add(new File([new Uint8Array(arguments[0])], "dropped.mp4", {type: "video/mp4"}));
document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: holder, bubbles: true}));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with started(tmp_path_factory.mktemp("profile"), *flags) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(clip_runs: ClipRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served") / "temporary"
    with demo(clip_runs.first, folder, "--max-megabytes", "5") as (_, port):
        yield f"http://127.0.0.1:{port}/"


def opened(browser: Any, address: str, screen: dict[str, Any]) -> Shown:
    """The front page, from which nothing but this machine may be asked."""
    return Shown(browser, address, screen, allowed=(address, "data:", "blob:"))


def test_a_chosen_clip_is_predicted(browser: Any, address: str, clip_runs: ClipRuns) -> None:
    with opened(browser, address, DESK) as page:
        assert page.text(".summary") == "The model chooses one of: glad, sad."
        page.one("#clip").send_keys(str(clip_runs.clips / "c7.mp4"))
        page.one("#words").send_keys("WEBVTT\n\n00:00.100 --> 00:00.700\nso kind")
        page.one("#predict").click()
        wait(page, "document.querySelector('.headline')")
        assert page.text("h1") == "c7.mp4"
        assert page.texts("#transcript .word") == ["so", "kind"]
        wait(page, "document.getElementById('player').readyState >= 2")
        page.one(".back a").click()
        wait(page, "document.getElementById('predict')")
        assert page.browser.current_url == address


def test_a_dropped_clip_is_taken_and_a_large_one_is_not(
    browser: Any, address: str, clip_runs: ClipRuns
) -> None:
    with opened(browser, address, DESK) as page:
        page.browser.execute_script(DROP, [0] * 5_000_001)
        assert page.text("#error") == "The clip is larger than 5 MB, the limit of this demo."
        page.one("#predict").click()
        assert page.text("h1") == "Try a clip"  # it was not sent
        page.browser.execute_script(DROP, list((clip_runs.clips / "c6.mp4").read_bytes()))
        assert not page.one("#error").is_displayed()
        page.one("#predict").click()
        wait(page, "document.querySelector('.headline')")
        assert page.text("h1") == "dropped.mp4"


def test_a_recording_begins_with_a_click_and_is_predicted(browser: Any, address: str) -> None:
    with opened(browser, address, PHONE) as page:
        assert page.browser.execute_script("return document.documentElement.scrollWidth") == 360
        assert not page.one("#preview").is_displayed()
        page.one("#record-both").click()
        wait(page, "document.getElementById('preview').currentTime > 0.5")
        page.one("#stop").click()
        wait(page, "document.getElementById('clip').files.length")
        assert page.text("#recorded").startswith("Recorded ")
        page.one("#predict").click()
        wait(page, "document.querySelector('.headline')")
        assert page.text("h1").startswith("recording.")
        assert page.browser.execute_script("return document.documentElement.scrollWidth") == 360


def test_a_file_that_is_no_clip_is_one_line(browser: Any, address: str, tmp_path: Path) -> None:
    note = tmp_path / "note.mp4"
    note.write_text("no clip")
    with Shown(browser, address, DESK, allowed=(address, "data:")) as page:
        page.one("#clip").send_keys(str(note))
        page.one("#predict").click()
        wait(page, "!document.getElementById('error').hidden")
        said = "note.mp4: cannot be read: damaged, or not a file of sound or pictures"
        assert page.text("#error") == said
        (message,) = browser.get_log("browser")
        assert "422" in message["message"]
