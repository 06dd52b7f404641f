"""Optional packages: which extra installs which, and one refusal before any work begins."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final

from alignmamba.errors import ConfigError

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "notebook": ("pandas", "matplotlib"),
    "formats": ("pyarrow", "h5py"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "bench": ("matplotlib",),
    "experiments": ("scipy", "matplotlib", "jinja2", "submitit"),
    "tune": ("optuna",),
    "gpu": ("triton",),
    "text": ("transformers",),
    "media": ("av", "pebble", "PIL", "pocketsphinx", "webvtt", "praatio", "num2words", "jinja2"),
    "face": ("mediapipe",),
    "egemaps": ("opensmile",),
    "asr": ("faster_whisper",),
    "ray": ("ray",),
    "demo": ("starlette", "uvicorn", "python_multipart"),
    "serve": ("starlette", "uvicorn"),
}
"""Extra to the modules that it installs, as ``pyproject.toml`` lists them."""


def lacking(extra: str, *modules: str) -> str:
    """Name the first module of an extra that is not installed, and the command that installs it; empty if all
    are there.

    Args:
        extra: A key of `EXTRAS`.
        modules: Those of its modules that are needed; none means all of them.
    """
    for module in modules or EXTRAS[extra]:
        if find_spec(module) is None:
            return f"{module} is not installed, try: pip install 'alignmamba[{extra}]'"
    return ""


def require(what: str, extra: str, *modules: str) -> None:
    """Refuse to begin without an optional package.

    Args:
        what: What needs it, for the message.
        extra: A key of `EXTRAS`.
        modules: Those of its modules that are needed; none means all of them.

    Raises:
        ConfigError: With the command that installs it.
    """
    problem = lacking(extra, *modules)
    if problem:
        raise ConfigError(f"{what}: {problem}")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep `transformers` from printing bars and tables."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def versions(*packages: str) -> str:
    """Versions of installed packages, for people, for example ``av 18.1.0, torch 2.13.0``.

    Args:
        packages: Names as they are installed by.
    """
    return ", ".join(f"{name} {version(name).partition('+')[0]}" for name in packages)
