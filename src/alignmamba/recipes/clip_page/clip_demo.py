"""The demo of runs: clips that come to the local page are read, predicted and shown."""

from collections.abc import Callable, Sequence
from pathlib import Path

from alignmamba.contracts import Task
from alignmamba.errors import DataError
from alignmamba.extras import require
from alignmamba.media.recipe import Recipe, repeated
from alignmamba.recipes.clip_page.clip_page import clip_page, opened_runs
from alignmamba.recipes.clip_page.clip_server import Front, serve
from alignmamba.recipes.clip_page.upload import Upload
from alignmamba.recipes.extraction.clip_engines import ClipEngine
from alignmamba.recipes.extraction.clip_predictions import ClipReading, recipe_of

_CLASSES_SHOWN = 12


def serve_demo(
    run: str | Path,
    *,
    also: Sequence[str | Path] = (),
    port: int = 0,
    models: Path | None = None,
    most_bytes: int = 200_000_000,
    limit_seconds: float = 300.0,
    announce: Callable[[str], object] = lambda _: None,
    note: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve a page on loopback that predicts clips, until Ctrl-C or SIGTERM.

    Args:
        run: Directory of the run.
        also: Directories of further runs, such as those of other seeds.
        port: Port to listen on; 0 takes a free one.
        models: Folder of the weights that the recipe names, if they were moved.
        most_bytes: Largest clip that is taken.
        limit_seconds: Time after which reading a clip fails.
        announce: Called with the address when it can be opened.
        note: Called with each sentence on readers of another version than in training.

    Raises:
        AlignMambaError: If a run, weights or the port cannot be used, or a package is missing.
        KeyboardInterrupt: At the end.
    """
    require("demo", "demo")
    runs = opened_runs(run, also)
    recipe = recipe_of(runs[0])
    for line in repeated(recipe, models=models).notes:  # refuses other weights before anybody comes
        note(line)
    reading = ClipReading(models=models, engine=ClipEngine(limit=limit_seconds))
    names = ", ".join(each.stored.path.name for each in runs)
    front = Front(
        question=_question(runs[0].model.config.task),
        about=f"Predicted by {runs[0].config.model}, {'run' if len(runs) == 1 else 'runs'} {names}.",
        words=_words_label(recipe),
        most_bytes=most_bytes,
    )

    def answer(upload: Upload) -> str:
        if _subtitles_alone(recipe) and upload.path.with_suffix(".txt").exists():
            raise DataError("words: found plain text, expected subtitles (SubRip or WebVTT) with their times")
        return clip_page(runs, upload.path, name=upload.name, back=True, reading=reading).text

    serve(answer, front, port=port, announce=announce)


def _question(task: Task) -> str:
    if task.kind != "regression":
        which = "which of these are there" if task.kind == "multilabel" else "one of"
        shown = ", ".join(task.classes[:_CLASSES_SHOWN])
        more = len(task.classes) - _CLASSES_SHOWN
        return f"The model chooses {which}: {shown}{f' and {more} more' if more > 0 else ''}."
    if task.label_range is None:
        return "The model predicts a number."
    return "The model predicts a number from {:g} to {:g}.".format(*task.label_range)


def _words_label(recipe: Recipe) -> str:
    """Label of the field for words; empty where no words are read, or a tool writes them down."""
    if recipe.text is None or recipe.words is None or recipe.words.name == "asr":
        return ""
    said = "Subtitles" if _subtitles_alone(recipe) else "Words that are spoken, or subtitles"
    return f"{said} (SubRip or WebVTT), if you have them"


def _subtitles_alone(recipe: Recipe) -> bool:
    return recipe.words is not None and recipe.words.name == "subtitles"
