"""The page about a clip in a real browser: it plays, words light up, plans appear, and nothing leaves it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Task
from alignmamba.recipes.clip_page.clip_page import render, write_clip_page
from alignmamba.recipes.clip_page.clip_study import Answer, ClipStudy
from chromium import DESK, NEEDS_BROWSER, PHONE, Shown, started, webdriver
from clip_runs import ClipRuns

pytestmark = NEEDS_BROWSER

HOSTILE = "</script><img src=x onerror=alert(1)>"
WATCH = """
window.lit = new Set();
const look = () => {
  for (const each of document.querySelectorAll("#transcript .lit")) window.lit.add(each.textContent);
  requestAnimationFrame(look);
};
look();
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile"), "--autoplay-policy=no-user-gesture-required") as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(clip_runs: ClipRuns, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    clip = clip_runs.clips / "c7.mp4"
    study = write_clip_page(clip_runs.first, [clip], root / "two.html", also=[clip_runs.second]).study
    write_clip_page(clip_runs.late, [clip], root / "late.html")
    (root / "moods.html").write_text(render(with_labels(study), clip.read_bytes()), encoding="utf-8")
    content = clip.read_bytes()
    lanes = [
        dataclasses.replace(lane, tokens=(HOSTILE, "<b>very</b>", "kind")) if lane.tokens else lane
        for lane in study.lanes
    ]
    hostile = dataclasses.replace(study, name=HOSTILE, lanes=tuple(lanes), notes=(HOSTILE,))
    (root / "hostile.html").write_text(render(hostile, content), encoding="utf-8")
    (root / "broken.html").write_text(render(study, b"no clip at all"), encoding="utf-8")
    (root / "absent.html").write_text(render(study, None), encoding="utf-8")
    words = tuple(f"word{number}" for number in range(300))
    long = [
        dataclasses.replace(lane, length=300, tokens=words, times=tuple(number / 5 for number in range(300)))
        if lane.tokens
        else lane
        for lane in study.lanes
    ]
    sight = dataclasses.replace(study.sight, seconds=60.0)
    minute = dataclasses.replace(
        study, lanes=tuple(long), sight=sight, plan=None, no_plan="None.", name="long" * 40
    )
    (root / "minute.html").write_text(render(minute, None), encoding="utf-8")
    return {path.stem: path for path in root.glob("*.html")}


def with_labels(study: ClipStudy) -> ClipStudy:
    """The same with two runs of six labels, whose thresholds and whose need of words are invented."""
    names = ("happy", "sad", "angry", "surprised", "disgusted", HOSTILE)
    answers = tuple(
        Answer(
            run=f"run{seed}",
            seed=seed,
            complete=np.array([0.8, 0.1, 0.4, 0.6, 0.1, 0.2]) + seed / 100,
            without={name: np.array([0.2, 0.5, 0.4, 0.6, 0.1, 0.2]) for name in ("text", "audio", "video")},
            thresholds=np.array([0.5, 0.3, 0.5, 0.5, 0.2, 0.3]),
        )
        for seed in range(2)
    )
    return dataclasses.replace(study, task=Task(kind="multilabel", classes=names), answers=answers)


def wait(page: Shown, condition: str) -> None:
    """Wait until a condition of the page holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page.browser, 60, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(f"return Boolean({condition})"), condition
    )


class Complaining(Shown):
    """A page whose complaints are wanted."""

    def __exit__(self, *_: object) -> None:
        self.browser.get_log("browser")


LOADED = "document.getElementById('player').readyState >= 2"
ALLOWED = ("file:", "data:", "blob:")


def test_it_plays_and_words_light_up(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["two"], DESK, allowed=ALLOWED) as page:
        wait(page, LOADED)
        assert page.browser.execute_script("return document.getElementById('player').videoWidth") == 64
        assert page.texts("#transcript .word") == ["so", "very", "kind"]
        assert page.texts("#transcript .lit") == []
        page.browser.execute_script(WATCH)
        page.one("#play").click()
        wait(page, "document.getElementById('player').ended")
        assert set(page.browser.execute_script("return [...window.lit]")) == {"so", "very", "kind"}
        assert page.text("#play") == "Play"
        page.browser.execute_script("seek(0.35)")
        wait(page, "document.querySelector('#transcript .lit')?.textContent === 'very'")
        assert page.texts("#scroll .token.lit") == ["very"]


def test_the_space_bar_plays_and_pauses(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["two"], DESK, allowed=ALLOWED) as page:
        wait(page, LOADED)
        # a clip of a second would be over before a busy machine has looked at it
        page.browser.execute_script("document.getElementById('player').playbackRate = 0.1")
        page.press(" ")
        wait(page, "document.getElementById('player').currentTime > 0.01")
        assert page.text("#play") == "Pause"
        page.press(" ")
        wait(page, "document.getElementById('player').paused")
        assert page.text("#play") == "Play"


def test_a_token_shows_what_it_was_matched_to(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["two"], DESK, allowed=ALLOWED) as page:
        wait(page, LOADED)
        assert len(page.all("#scroll .ribbons .ribbon")) > 0
        page.point_at(page.all("#scroll .token")[2])  # at 0.5 s, nearest in time to sounds and pictures
        held = "return JSON.parse(document.getElementById('data').textContent)"
        data = page.browser.execute_script(held)
        times = {lane["modality"]: lane["times"] for lane in data["lanes"]}
        expected, begins = 0, {}
        for link in data["links"]:
            index = link["index"]
            own = (
                [at for at, to in enumerate(index) if to == 2] if link["marginal"] == "source" else [index[2]]
            )
            expected += sum(before + 1 != after for before, after in zip([-2, *own], own, strict=False))
            begins[link["modality"]] = f"{times[link['modality']][own[0]]:.2f}"
        said = page.text("#line")
        assert said.startswith(f"“kind” at 0.50 s is matched to sound of {begins['audio']} to ")
        assert f", and to pictures of {begins['video']} to " in said
        assert len(page.all("#scroll .shown .ribbon")) == expected > 0
        assert page.texts("#scroll .token.on") == ["kind"]


def test_the_keyboard_moves_between_tokens_and_lanes(browser: Any, pages: dict[str, Path]) -> None:
    keys = webdriver.Keys
    with Shown(browser, pages["two"], DESK, allowed=ALLOWED) as page:
        wait(page, LOADED)
        active = "return document.activeElement.getAttribute(arguments[0])"

        def said(attribute: str) -> str:
            return str(page.browser.execute_script(active, attribute))

        for _ in range(20):
            page.press(keys.TAB)
            if said("aria-label") == "Words, tokens over time":
                break
        assert said("aria-label") == "Words, tokens over time"
        outline = "return getComputedStyle(document.activeElement.querySelector('.ground')).strokeWidth"
        assert page.browser.execute_script(outline) == "3px"
        page.press(keys.ARROW_RIGHT)
        assert said("aria-valuenow") == "2"
        assert said("aria-valuetext").startswith("“very” at 0.30 s is matched to")
        wait(page, "Math.abs(document.getElementById('player').currentTime - 0.3) < 0.02")
        page.press(keys.END)
        assert said("aria-valuenow") == said("aria-valuemax") == "3"
        page.press(keys.ARROW_RIGHT)
        assert said("aria-valuenow") == "3"
        page.press(keys.ARROW_UP)
        assert said("aria-label") == "Sound, tokens over time"
        assert "is matched to “kind”" in said("aria-valuetext")
        page.press(keys.ARROW_DOWN, keys.ARROW_DOWN)
        assert said("aria-label") == "Pictures, tokens over time"


def test_words_and_names_are_text(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK, allowed=ALLOWED) as page:
        wait(page, LOADED)
        assert page.all("img") == page.all("b") == []
        assert page.text("h1") == HOSTILE
        assert page.texts("#transcript .word")[0] == HOSTILE
        page.point_at(page.all("#scroll .token")[0])
        assert HOSTILE in page.text("#line")


@pytest.mark.parametrize("name", ["broken", "absent"])
def test_the_time_line_works_where_nothing_can_be_played(
    browser: Any, pages: dict[str, Path], name: str
) -> None:
    with Shown(browser, pages[name], DESK, allowed=ALLOWED) as page:
        if name == "broken":
            wait(page, "!document.getElementById('unplayable').hidden")
            assert "This browser cannot play the clip (mov, " in page.text("#unplayable")
            assert not page.one("#player").is_displayed()
        page.browser.execute_script(WATCH)
        page.one("#play").click()
        wait(page, "document.getElementById('play').textContent === 'Play' && now() >= seconds")
        assert set(page.browser.execute_script("return [...window.lit]")) == {"so", "very", "kind"}
        page.pick("#position", "0.12")
        assert page.texts("#transcript .lit") == ["so"]
        assert page.text("#now").startswith("0.12 / ")


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_labels_stand_with_what_each_modality_changes(
    browser: Any, pages: dict[str, Path], screen: dict[str, Any]
) -> None:
    with Shown(browser, pages["moods"], screen, allowed=ALLOWED) as page:
        assert page.text(".headline") == "happy, surprised"
        assert page.texts(".bars .chosen .name") == ["happy", "surprised"]
        assert len(page.all(".bars .threshold")) == 6
        assert len(page.all(".labels tbody tr")) == 6
        flipped = page.all(".labels .flipped")
        assert len(flipped) == 6  # happy and sad, without each of three
        assert all(each.is_displayed() for each in flipped)
        assert page.all("img") == page.all("b") == []
        # nothing of the prediction reaches out of its column
        edges = "return [...document.querySelectorAll('.bars *')].map((e) => e.getBoundingClientRect().right)"
        assert max(page.browser.execute_script(edges)) <= screen["width"]


@pytest.mark.parametrize("name", ["two", "late", "hostile", "minute", "absent", "moods"])
def test_a_phone_shows_all_of_it(browser: Any, pages: dict[str, Path], name: str) -> None:
    with Shown(browser, pages[name], PHONE, allowed=ALLOWED) as page:
        wait(page, "document.querySelector('#scroll svg')")
        width = "return [document.documentElement.scrollWidth, innerWidth]"
        assert page.browser.execute_script(width) == [360, 360]


def test_a_long_clip_scrolls_in_its_own_box_and_follows_the_time(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Shown(browser, pages["minute"], DESK, allowed=ALLOWED) as page:
        wide = "return document.querySelector('#scroll svg').clientWidth > 5000"
        assert page.browser.execute_script(wide)
        assert page.browser.execute_script("return document.getElementById('scroll').scrollLeft") == 0
        page.browser.execute_script("go(lanes.find((lane) => lane.tokens), 250)")
        assert page.texts("#transcript .lit") == ["word250"]
        seen = (
            "const at = document.querySelector('#scroll .token.lit').getBoundingClientRect();"
            "return at.left > 0 && at.right < innerWidth"
        )
        assert page.browser.execute_script(seen)
        for _ in range(12):
            page.one("#narrower").click()
        assert not page.browser.execute_script(wide)
        assert page.browser.execute_script(
            "const box = document.getElementById('scroll'); return box.scrollWidth <= box.clientWidth"
        )


def test_the_policy_forbids_what_the_page_does_not_need(browser: Any, pages: dict[str, Path]) -> None:
    """A script that got in could neither run nor ask anything of a network."""
    with Complaining(browser, pages["two"], DESK) as page:
        wait(page, LOADED)
        page.browser.execute_script(
            """
            window.violations = [];
            const note = (each) => window.violations.push(each.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const picture = document.createElement("img");
            picture.src = "http://127.0.0.1:9/picture.png";
            document.body.append(picture);
            fetch("http://127.0.0.1:9/").catch(() => {});
            """
        )
        wait(page, "window.violations.length >= 3")
        found = set(page.browser.execute_script("return window.violations"))
        assert found == {"script-src-elem", "img-src", "connect-src"}
        assert page.browser.execute_script("return window.ran") is None
