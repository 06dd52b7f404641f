"""Pictures of pages: the report of a run on invented sentences that only words and voice together explain,
and the page about a clip of the demo's video, as a browser shows them.

Needs Chromium, chromedriver and Selenium: ``make screenshots``.
"""

import base64
import runpy
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.data.archive import write_corpus
from alignmamba.media.recipe import composed
from alignmamba.recipes.clip_page.clip_page import write_clip_page
from alignmamba.recipes.configuration import check_config, read_config
from alignmamba.recipes.extraction.clip_table import labelled_clips
from alignmamba.recipes.extraction.extraction import extract
from alignmamba.recipes.report.page import write_page
from alignmamba.recipes.training_run import train

SIZES: Final[Mapping[Role, int]] = {"train": 800, "valid": 100, "test": 200}
CONFIG: Final = {"fit": {"epochs": 6}, "options": {"d_model": 32, "depth": 1}, "loader": {"batch_size": 16}}
SCREEN: Final = {"width": 960, "height": 720, "deviceScaleFactor": 1, "mobile": False}
MOST_BYTES: Final = 400_000
EXAMPLES: Final = Path(__file__).parents[1] / "examples"
SEEDS: Final = 3
"""Runs on the clips, whose predictions vary."""

CLASSES: Final = ("praise", "irony", "teasing", "complaint")
"""Kind words in a pleased voice, kind words in an annoyed one, harsh words in a pleased voice, harsh words in
an annoyed one."""
OPENINGS: Final = (
    "I saw it with my sister and",
    "as for the new one",
    "well",
    "we talked about it and",
    "to be honest",
    "last night",
)
SUBJECTS: Final = ("the ending", "the film", "the music", "that actor", "the plot", "the second half")
STRENGTHS: Final = ("was", "was really", "was so very", "seemed quite")
JUDGEMENTS: Final = (("great", "lovely", "brilliant", "superb"), ("awful", "boring", "dreadful", "dull"))
CLOSINGS: Final = ("", "if you ask me", "as always", "from the start", "don't you think")
WIDTHS: Final = {"text": 12, "audio": 6, "video": 4}
FRAMES: Final = {"audio": 10, "video": 5}
"""Frames a second."""
PLEASURE: Final = {"audio": 1.1, "video": 0.7}
"""How clearly a pleased voice or face shows, against a spread of 0.8 from sample to sample."""
WORD_SECONDS: Final = (0.22, 0.4)


def main(out: Path) -> None:
    """Write ``report.png``, ``sample.png``, ``plan-viewer.png`` and ``clip-page.png`` into a folder."""
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        sys.exit("screenshots: needs chromium and chromedriver on the path")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        page = write_page(train_on_sentences(place)).path
        clip = page_of_clip(place)
        out.mkdir(parents=True, exist_ok=True)
        for name, picture in _pictures(page, clip, browser, driver).items():
            if len(picture) > MOST_BYTES:
                sys.exit(f"screenshots: {name} has {len(picture)} bytes, expected at most {MOST_BYTES}")
            (out / name).write_bytes(picture)


def train_on_sentences(place: Path) -> Path:
    """Write the corpus ``sentences`` into a folder and train on it.

    Returns:
        The directory of the run.
    """
    random = np.random.default_rng(0)
    splits = {role: _sentences(size, random) for role, size in SIZES.items()}
    references = {"chance_accuracy": 0.25, "best_single_modality_accuracy": 0.5}
    write_corpus(
        place / "sentences",
        splits,
        task=Task(kind="classification", classes=CLASSES),
        units={"text": "word vectors", "audio": "pitch and loudness", "video": "face"},
        references=references,
    )
    train(check_config({**CONFIG, "data": str(place / "sentences")}), out=place / "run", progress=None)
    return place / "run"


def _sentences(size: int, random: np.random.Generator) -> dict[str, Any]:
    """One split. The judgement says kind or harsh; the voice upon it, and less clearly the face, pleased or
    annoyed.
    """
    texts, targets = [], []
    features: dict[str, list[Any]] = {name: [] for name in WIDTHS}
    times: dict[str, list[Any]] = {name: [] for name in WIDTHS}
    for _ in range(size):
        harsh, annoyed = random.integers(0, 2, 2)
        parts = [
            str(random.choice(words))
            for words in (OPENINGS, SUBJECTS, STRENGTHS, JUDGEMENTS[harsh], CLOSINGS)
        ]
        words = " ".join(parts).split()
        ends = np.cumsum(random.uniform(*WORD_SECONDS, len(words)))
        starts = np.concatenate([[0.0], ends[:-1]])
        judged = words.index(parts[3])
        features["text"].append(
            np.stack([_word_vector(word) for word in words])
            + random.normal(0, 0.1, (len(words), WIDTHS["text"]))
        )
        times["text"].append((starts + ends) / 2)
        pleased = -1.0 if annoyed else 1.0
        for name in FRAMES:
            when = np.arange(0.5 / FRAMES[name], ends[-1], 1 / FRAMES[name])
            upon = (when >= starts[judged]) & (when < ends[judged])
            frames = random.normal(0, 0.5, (len(when), WIDTHS[name]))
            frames[upon, 0] += 2.0
            frames[upon, 1] += 2.0 * random.normal(PLEASURE[name] * pleased, 0.8)
            features[name].append(frames)
            times[name].append(when)
        texts.append(" ".join(words))
        targets.append(CLASSES[2 * harsh + annoyed])
    tokens = {"text": [text.split() for text in texts]}
    return {"features": features, "times": times, "tokens": tokens, "texts": texts, "targets": targets}


def _word_vector(word: str) -> np.ndarray:
    """Of fixed random numbers."""
    return np.random.default_rng(list(word.encode())).normal(0, 1, WIDTHS["text"])


def page_of_clip(place: Path) -> Path:
    """Make the clips of the demo in a folder, train on them with several seeds, and show a new clip.

    Returns:
        The page about it.
    """
    make_clips = runpy.run_path(str(EXAMPLES / "demo_video.py"))["make_clips"]
    clips, corpus, page = place / "clips", place / "corpus", place / "clip.html"
    make_clips(clips)
    recipe = composed(
        {"text": "hashed", "words": "subtitles", "audio": "logmel", "video": "pixels"}, {}
    ).recipe
    extract(labelled_clips(clips, clips / "labels.csv"), recipe, corpus)
    runs = []
    for seed in range(SEEDS):
        settings = read_config(EXAMPLES / "demo_video.yaml", overrides={"data": str(corpus), "seed": seed})
        runs.append(train(settings, out=place / f"run{seed}", progress=None).directory)
    make_clips(place / "new", seed=1, clips={"test": 1})
    write_clip_page(runs[0], [place / "new"], page, also=runs[1:])
    return page


def _pictures(page: Path, clip: Path, binary: str, driver: str) -> dict[str, bytes]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SCREEN)
        browser.get(page.as_uri())
        made = {"report.png": _part(browser, "header", "#worth")}
        browser.execute_script(_CHOOSE_A_JUDGEMENT, [word for words in JUDGEMENTS for word in words])
        made["plan-viewer.png"] = _part(browser, "#plan-viewer", "#plan-viewer .pair")
        browser.execute_script("document.querySelector('#sample-table button.open').click()")
        made["sample.png"] = browser.get_screenshot_as_png()
        browser.get(clip.as_uri())
        browser.execute_async_script(_CHOOSE_A_WORD)
        made["clip-page.png"] = _part(browser, "header", "#line")
        return made
    finally:
        browser.quit()


_CHOOSE_A_JUDGEMENT: Final = """
const tokens = [...document.querySelectorAll("#plan-viewer .pair .token[data-kind=anchor]")];
const judgement = tokens.find((each) => arguments[0].includes(each.textContent));
judgement.dispatchEvent(new Event("click", {bubbles: true}));
"""
"""So that its matches stand out."""
_CHOOSE_A_WORD: Final = """
const [done] = arguments, player = document.getElementById("player");
const choose = () => {
  player.addEventListener("seeked", () => setTimeout(done, 1000), {once: true});
  const words = lanes.find((lane) => lane.tokens);
  go(words, words.length - 1);
};
if (player.readyState >= 2) choose();
else player.addEventListener("loadeddata", choose, {once: true});
"""
"""The last one; after a second nothing moves in the player."""
_PART: Final = """
const [first, last] = arguments[0].map((each) => document.querySelector(each).getBoundingClientRect());
return [first.top + window.scrollY, last.bottom + window.scrollY];
"""


def _part(browser: Any, first: str, last: str) -> bytes:
    """The page from one element to another."""
    top, bottom = browser.execute_script(_PART, [first, last])
    clip = {
        "x": 0,
        "y": max(0, top - 16),
        "width": SCREEN["width"],
        "height": bottom - max(0, top - 16),
        "scale": 1,
    }
    asked = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", asked)["data"])


if __name__ == "__main__":
    main(Path(__file__).parent / "images")
