"""The page in a real browser: it works, it is quiet, it asks nothing of the network. Skipped where there is
no Chromium or Selenium.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invented_experiments import HOSTILE, LONG, METHODS, QUOTES, STRINGS, studied_run, write_experiment

from alignmamba.recipes.report.page import render, write_page
from chromium import DESK, NEEDS_BROWSER, PHONE, Shown, started, webdriver

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    hostile = write_experiment(
        root / "hostile",
        hostile=True,
        rows=("alignmamba", HOSTILE, LONG, QUOTES),
        plan_lengths=(30, 9),
        failed=[3],
        pending=[6],
    )
    numbers = write_experiment(
        root / "numbers",
        kind="regression",
        rows=METHODS[:1],
        columns=["10 %", "20 %"],
        seeds=1,
        samples=240,
        experiment="missing",
    )
    classes = write_experiment(
        root / "classes", rows=METHODS[:1], samples=240, classes=[f"class {number}" for number in range(80)]
    )
    made = {path.name: write_page(path).path for path in (hostile, numbers, classes)}
    runs = {
        "studied": studied_run(root / "studied"),
        "long": studied_run(root / "long", kind="regression", plan_lengths=(3000, 400)),
    }
    for name, gathered in runs.items():
        made[name] = root / f"{name}.html"
        made[name].write_text(render(gathered), encoding="utf-8")
    return made


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_viewer_of_plans(browser: Any, pages: dict[str, Path]) -> None:
    keys = webdriver.Keys
    with Shown(browser, pages["hostile"], DESK) as page:
        plans = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))[
            "plans"
        ]
        page.choose("#plan-sample", 1)
        sample = plans[0]["samples"][1]
        audio, video = sample["sources"]
        assert sample["id"] in page.text("#plan-facts")
        assert page.text("#plan-viewer .line") == "Point at a token or tap it to see what it was matched to."
        lanes = page.all("#plan-viewer [role=listbox]")
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
        assert page.text("#plan-viewer .line") == "audio token 0 (0.00 s) → nothing in text"
        page.press(*[keys.ARROW_RIGHT] * 12)
        match = audio["index"][12]
        told = page.text("#plan-viewer .line")
        assert told.startswith(
            f"audio token 12 (0.48 s) → text token {match} '{sample['anchor']['tokens'][match]}', similarity "
        )
        assert float(told.rpartition(" ")[2].replace("−", "-")) == pytest.approx(
            audio["similarity"][12], abs=0.006
        )
        assert len(page.all("#plan-viewer .link.on")) == 1
        page.press(keys.ARROW_DOWN)
        taken = [place for place, other in enumerate(audio["index"]) if other == match]
        assert page.text("#plan-viewer .line").startswith(
            f"text token {match} '{sample['anchor']['tokens'][match]}' ← audio tokens {taken[0]} ("
        )
        assert (
            len(page.all("#plan-viewer .link.on"))
            == len(page.all("#plan-viewer .token.match"))
            == len(taken)
            > 1
        )
        page.press(keys.HOME)
        assert page.text("#plan-viewer .line").startswith("text token 0 ")
        page.press(keys.TAB)  # a picture that scrolls nowhere is no stop of its own
        assert page.browser.switch_to.active_element.get_attribute("class") == "overview"
        while page.browser.switch_to.active_element.get_attribute("role") != "option":
            page.press(keys.TAB)
            assert page.browser.switch_to.active_element.tag_name != "svg"

        # By pointing and by tapping, in the other lanes.
        anchor = page.all("#plan-viewer .pair:nth-of-type(2) .token[data-kind=anchor]")[4]
        page.point_at(anchor)
        told = page.text("#plan-viewer .line")
        assert f" ← video token {video['index'][4]}, similarity " in told
        assert browser.switch_to.active_element.get_attribute("data-place") == "0"
        anchor.click()
        assert browser.switch_to.active_element.get_attribute("data-place") == "4"
        assert page.text("#plan-viewer .line") == told


def test_samples_are_sorted_searched_and_sifted(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK) as page:
        data = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))[
            "samples"
        ]
        pairs = list(zip(data["sets"][0]["targets"], data["cells"][0]["prediction"], strict=True))
        wrong = sum(target != prediction for target, prediction in pairs)
        rows = "#sample-table tbody tr"
        assert len(page.all(rows)) == 12
        page.pick("#sample-result", "wrong")
        assert 0 < wrong < 12
        assert page.texts(f"{rows} td:last-child") == ["wrong"] * wrong
        assert page.text("#sample-count") == f"{wrong} of 12 samples"
        page.pick("#sample-result", "")
        page.pick("#sample-target", "1")
        assert set(page.texts(f"{rows} td:nth-child(2)")) == {data["classes"][1]}
        page.pick("#sample-target", "")
        page.pick("#sample-said", "2")
        assert set(page.texts(f"{rows} td:nth-child(3)")) == {data["classes"][2]}
        page.pick("#sample-said", "")
        page.pick("#sample-result", "disputed")
        said = [cell["prediction"] for cell in data["cells"]]
        assert len(page.all(rows)) == sum(len(set(each)) > 1 for each in zip(*said, strict=True))
        page.pick("#sample-result", "")
        buttons = page.all("#sample-table thead button")
        assert [button.text for button in buttons] == ["id", "target", "prediction", "result"]
        buttons[3].click()
        assert page.texts(f"{rows} td:last-child") == ["right"] * (12 - wrong) + ["wrong"] * wrong
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
        targets = [number(text) for text in page.texts(f"{rows} td:nth-child(2)")]
        assert targets == sorted(targets)
        assert len(targets) == 240
        page.pick("#sample-result", "wrong")
        pairs = zip(page.texts(f"{rows} td:nth-child(2)"), page.texts(f"{rows} td:nth-child(3)"), strict=True)
        assert all(number(target) * number(prediction) < 0 for target, prediction in pairs)
        page.choose("#sample-run", 1)
        assert page.text("#sample-table caption") == "alignmamba, 20 %, seed 0, test"
        assert set(page.texts(f"{rows} td:last-child")) == {"", "audio"}


def test_a_plan_of_thousands_of_tokens_fits_its_place(browser: Any, pages: dict[str, Path]) -> None:
    keys = webdriver.Keys
    with Shown(browser, pages["long"], DESK) as page:
        told = "#plan-viewer .pair:first-of-type .range"
        wide = "return document.querySelector('#plan-viewer svg').getBoundingClientRect().width"
        assert page.browser.execute_script(wide) <= 1068
        assert len(page.all("#plan-viewer .token")) < 600
        assert page.text(told).startswith("audio 0 to 1")
        assert page.text(told).endswith(" of 400")

        # The brush.
        overview = page.one("#plan-viewer .overview")
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", overview)
        drag = (
            webdriver.ActionChains(browser, duration=0)
            .move_to_element_with_offset(overview, 0, 0)
            .click_and_hold()
        )
        drag.move_by_offset(30, 0).release().perform()
        shown = page.text(told)
        first, last = (int(each) for each in (shown.split()[1], shown.split()[3]))
        assert first == pytest.approx(1500, abs=12)
        assert last - first == pytest.approx(30 / 1066 * 3000, abs=12)
        page.all("#plan-viewer .zooms button")[3].click()
        assert int(page.text(told).split()[1]) > first

        # Walking leaves the window, which follows.
        page.one("#plan-viewer .token[data-kind=source]").click()
        page.press(keys.END)
        assert "2999 of 3000" in page.text(told)
        assert page.text("#plan-viewer .line").startswith("audio token 2999 (119.96 s) → text token 399")

        # Search by number.
        page.one("#plan-viewer input[type=search]").send_keys("1234")
        page.press(keys.ENTER)
        assert page.text("#plan-viewer .line").startswith("audio token 1234 ")


def test_plans_by_content_alone_and_summed_up(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["studied"], DESK) as page:
        page.all("#plan-viewer .token[data-kind=source]")[12].click()
        before = page.text("#plan-viewer .line")
        page.one("#plan-viewer input[type=checkbox]").click()
        page.all("#plan-viewer .token[data-kind=source]")[12].click()
        after = page.text("#plan-viewer .line")
        assert before != after
        assert "→ text token 8" in after
        assert after.endswith("similarity 0.95")
        page.pick("#plan-viewer select", "groups")
        assert len(page.all("#plan-viewer table")) == 2
        words = page.texts("#plan-viewer table:first-of-type thead th")
        assert [word for word in STRINGS if word in words] == list(STRINGS)
        assert sum(map(int, page.texts("#plan-viewer .pair:first-of-type td.sum"))) == 30


def test_a_drawer_with_all_that_is_known_of_a_sample(browser: Any, pages: dict[str, Path]) -> None:
    keys = webdriver.Keys
    with Shown(browser, pages["studied"], DESK) as page:
        data = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))[
            "samples"
        ]
        page.one("#sample-search").send_keys("said 1")
        assert len(page.all("#sample-table tbody tr")) == 3  # 1, 10, 11
        page.pick("#sample-group", data["study"]["groups"][1])
        assert page.texts("#sample-table tbody th") == [data["sets"][0]["ids"][1]]
        page.browser.execute_script("arguments[0].focus()", page.one("#sample-table button.open"))
        page.press(keys.ENTER)
        assert page.text("#drawer-title") == data["sets"][0]["ids"][1]
        assert page.text("#drawer .transcript") == data["study"]["texts"][1]
        shares = data["cells"][0]["probabilities"][1][1::2]
        assert page.texts("#drawer .bars .value") == [f"{share / 10:.1f} %" for share in shares]
        assert page.texts("#drawer tbody th") == ["all modalities", f"without {HOSTILE}"]
        assert page.all("#drawer svg.lanes .token")
        page.press(keys.ESCAPE)
        assert not page.one("#drawer").is_displayed()
        assert browser.switch_to.active_element.get_attribute("class") == "open"
        page.pick("#sample-group", "")
        page.all("#sample-table tbody td")[0].click()
        page.one("#drawer-following").click()
        assert page.text("#drawer-title") == data["sets"][0]["ids"][10]
        words = " ".join(" ".join(STRINGS).split())
        assert page.texts("#drawer h3")[-1] == "Tokens"
        assert page.texts("#drawer section:last-of-type tbody th") == [HOSTILE, QUOTES]
        assert [" ".join(each.split()) for each in page.texts("#drawer section:last-of-type tbody td")] == [
            str(len(STRINGS)),
            "0.50 s to 2.25 s",
            words,
            "missing",
            "",
            "",
        ]
        assert page.texts("#drawer-body > .aside")[-1].endswith(
            f"This sample has {HOSTILE} alone, so nothing is aligned."
        )
        page.one("#drawer-following").click()
        assert page.texts("#drawer section:last-of-type tbody td")[3] == "1,234"
        assert page.texts("#drawer-body > .aside")[-1].startswith(
            "This sample has no plan here. Plans of 3 of 12 samples"
        )


def test_one_forest_at_a_time(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK) as page:
        seen = "return Array.from(document.querySelectorAll('.forest'), (each) => !each.hidden)"
        assert page.browser.execute_script(seen) == [True, False]
        page.pick("#forest-choice", "1")
        assert page.browser.execute_script(seen) == [False, True]


def test_confusion_of_each_seed_and_of_all(browser: Any, pages: dict[str, Path]) -> None:
    with Shown(browser, pages["hostile"], DESK) as page:
        first = json.loads(page.browser.execute_script("return document.getElementById('data').textContent"))[
            "confusions"
        ][0]

        def shown() -> list[list[int]]:
            values = page.browser.execute_script(
                "return Array.from(document.querySelectorAll('#confusion-table tbody tr'), (row) =>"
                " Array.from(row.querySelectorAll('td:not(.sum)'), (cell) =>"
                " Number(cell.firstChild.textContent)))"
            )
            assert isinstance(values, list)
            return values

        together = [
            [a + b for a, b in zip(*lines, strict=True)]
            for lines in zip(*(cell["counts"] for cell in first["cells"]), strict=True)
        ]
        assert shown() == together
        page.choose("#confusion-seed", 2)
        assert shown() == first["cells"][1]["counts"]
        assert page.text("#confusion-table caption").startswith("alignmamba, seed 1")
        page.choose("#confusion-row", 1)
        assert page.text("#confusion-table caption").startswith(f"{HOSTILE}, seed 0")


def test_a_confusion_of_very_many_classes_says_what_it_leaves_out(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Shown(browser, pages["classes"], DESK) as page:
        (first, *_) = json.loads(
            page.browser.execute_script("return document.getElementById('data').textContent")
        )["confusions"]
        heads = page.texts("#confusion-table thead th")
        assert len(heads) == 1 + 20 + 1 + 1
        assert heads[-2:] == ["as 60 other classes", "samples"]
        counts = [cell["counts"] for cell in first["cells"]]
        seen = sum(
            line[j] for each in counts for i, line in enumerate(each[:20]) for j in range(20) if i != j
        )
        wrong = sum(cell["wrong"] for cell in first["cells"])
        assert page.text("#confusion-note").startswith(
            f"Shown are 20 of 80 classes, those that are confused most: they hold {seen} of {wrong} wrong"
            " predictions. The 60 others"
        )
        assert len(page.all("#confusion-table td.right")) == 20
        assert sum(map(int, page.texts("#confusion-table td.sum"))) == 2 * 240
    with Shown(browser, pages["studied"], DESK) as page:
        assert not page.one("#confusion-note").is_displayed()
        assert not page.one("#confusion-row").is_displayed()  # one choice is none
        assert not page.one("#confusion-seed").is_displayed()


@pytest.mark.parametrize("name", ["hostile", "numbers", "studied", "long", "classes"])
def test_a_phone_shows_it_whole(browser: Any, pages: dict[str, Path], name: str) -> None:
    with Shown(browser, pages[name], PHONE) as page:
        width, seen = page.browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert width == seen == 360
        page.browser.execute_script("document.querySelector('#sample-table button.open').click()")
        body = page.browser.execute_script(
            "const body = document.getElementById('drawer'); return [body.scrollWidth, body.clientWidth]"
        )
        assert body[0] == body[1] <= 360


CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgb(colour, under) {
  for (const style of [under, colour]) { canvas.fillStyle = style; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function light(parts) {
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = parts.map((part) => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ratio(a, b) {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
function behind(element) {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
  return "white";
}
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
  const words = texts.map((node) => node.data.trim()).join("");
  const apart = element.closest("script, noscript, [hidden], select, .token, .skip");
  if (!words || apart || !element.getClientRects().length) continue;
  const style = getComputedStyle(element), svg = element.namespaceURI.endsWith("svg");
  const under = rgb(behind(element), "white");
  const contrast = ratio(rgb(svg ? style.fill : style.color, behind(element)), under);
  if (contrast < (element.closest("[aria-hidden]") ? 3 : 4.5)) {
    found.push(`${element.tagName}.${element.getAttribute("class")} ${words.slice(0, 20)} ${contrast}`);
  }
}
return [getComputedStyle(document.body).backgroundColor, found];
"""


@pytest.mark.parametrize("name", ["hostile", "studied"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(browser: Any, pages: dict[str, Path], scheme: str, name: str) -> None:
    """The contrast that WCAG AA asks for, as the browser computes the colours."""
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    try:
        with Shown(browser, pages[name], DESK) as page:
            if name == "studied":
                page.browser.execute_script("document.querySelector('#sample-table button.open').click()")
            paper, faint = page.browser.execute_script(CONTRAST)
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert faint == []
