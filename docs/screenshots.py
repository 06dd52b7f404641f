"""Pictures for the README: a small run on the synthetic corpus, its report, and what a browser shows of it.

Needs Chromium, chromedriver and Selenium: ``make screenshots``.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from alignmamba.contracts import Sample
from alignmamba.data.archive import write_corpus
from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.recipes import check_config, train
from alignmamba.recipes.report.rendering import write_page

SIZES = {"train": 800, "valid": 100, "test": 100}
CONFIG = {"fit": {"epochs": 4}, "options": {"d_model": 32, "depth": 1}, "loader": {"batch_size": 32}}
SCREEN = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
MOST_BYTES = 300_000


def main(out: Path) -> None:
    """Write ``report.png`` and ``plan-viewer.png`` into a folder."""
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        sys.exit("screenshots: needs chromium and chromedriver on the path")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        corpus = synthetic_corpus(sizes=SIZES)
        names = [spec.name for spec in corpus.modalities]
        splits = {role: _arrays(list(split), names) for role, split in corpus.splits.items()}
        write_corpus(place / "synthetic", splits, task=corpus.task, name="synthetic", references=dict(corpus.references))
        train(check_config({**CONFIG, "data": str(place / "synthetic")}), out=place / "run")
        page = write_page(place / "run").path
        out.mkdir(parents=True, exist_ok=True)
        for name, picture in _pictures(page, browser, driver).items():
            if len(picture) > MOST_BYTES:
                sys.exit(f"screenshots: {name} has {len(picture)} bytes, expected at most {MOST_BYTES}")
            (out / name).write_bytes(picture)


def _arrays(samples: list[Sample], names: list[str]) -> dict[str, Any]:
    return {
        "ids": [sample.id for sample in samples],
        "targets": [sample.target for sample in samples],
        "features": {name: [sample.features.get(name) for sample in samples] for name in names},
        "times": {name: [sample.times.get(name) for sample in samples] for name in names},
        "tokens": {name: [sample.tokens.get(name) for sample in samples] for name in names},
    }


def _pictures(page: Path, binary: str, driver: str) -> dict[str, bytes]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
        browser.get(page.as_uri())
        made = {"report.png": browser.get_screenshot_as_png()}
        # One token of the first source is chosen, so that its match stands out.
        browser.execute_script("document.querySelectorAll('#plan-viewer .token')[12].dispatchEvent(new Event('click', {bubbles: true}))")
        browser.execute_script("document.querySelector('#plan-viewer').scrollIntoView()")
        return {**made, "plan-viewer.png": browser.get_screenshot_as_png()}
    finally:
        browser.quit()


if __name__ == "__main__":
    main(Path(__file__).parent / "images")
