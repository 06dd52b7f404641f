"""AlignMamba: fuse several token sequences into one prediction.

Names are imported when they are first used, so that `import alignmamba` and `alignmamba --help` cost nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignmamba import models as models
    from alignmamba import ops as ops
    from alignmamba.contracts import Batch, Corpus, ModalitySpec, Output, Sequences, Task
    from alignmamba.data.archive import load_corpus, write_corpus
    from alignmamba.data.user_arrays import SplitArrays
    from alignmamba.errors import AlignMambaError
    from alignmamba.methods import from_pretrained
    from alignmamba.methods.method import Method
    from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
    from alignmamba.models.network import Network
    from alignmamba.recipes.configuration import RunConfig
    from alignmamba.recipes.finished_run import evaluate, predict
    from alignmamba.recipes.opened import Run, open_run
    from alignmamba.recipes.sample_sources import fit
    from alignmamba.recipes.training_run import train
    from alignmamba.training.fit_config import FitConfig
    from alignmamba.training.objective import Minimise, Objective, Stage

__version__ = "0.1.0"

__all__ = [
    "AlignMamba",
    "AlignMambaConfig",
    "AlignMambaError",
    "Batch",
    "Corpus",
    "FitConfig",
    "Method",
    "Minimise",
    "ModalitySpec",
    "Network",
    "Objective",
    "Output",
    "Run",
    "RunConfig",
    "Sequences",
    "SplitArrays",
    "Stage",
    "Task",
    "__version__",
    "evaluate",
    "fit",
    "from_pretrained",
    "load_corpus",
    "models",
    "open_run",
    "ops",
    "predict",
    "train",
    "write_corpus",
]

# Where each public name lives. A name that ends its own module path is that module.
_EXPORTS = {
    "AlignMamba": "alignmamba.models.alignmamba",
    "AlignMambaConfig": "alignmamba.models.alignmamba",
    "AlignMambaError": "alignmamba.errors",
    "Batch": "alignmamba.contracts",
    "Corpus": "alignmamba.contracts",
    "FitConfig": "alignmamba.training.fit_config",
    "Method": "alignmamba.methods.method",
    "Minimise": "alignmamba.training.objective",
    "ModalitySpec": "alignmamba.contracts",
    "Network": "alignmamba.models.network",
    "Objective": "alignmamba.training.objective",
    "Output": "alignmamba.contracts",
    "Run": "alignmamba.recipes.opened",
    "RunConfig": "alignmamba.recipes.configuration",
    "Sequences": "alignmamba.contracts",
    "SplitArrays": "alignmamba.data.user_arrays",
    "Stage": "alignmamba.training.objective",
    "Task": "alignmamba.contracts",
    "evaluate": "alignmamba.recipes.finished_run",
    "fit": "alignmamba.recipes.sample_sources",
    "from_pretrained": "alignmamba.methods",
    "load_corpus": "alignmamba.data.archive",
    "models": "alignmamba.models",
    "open_run": "alignmamba.recipes.opened",
    "ops": "alignmamba.ops",
    "predict": "alignmamba.recipes.finished_run",
    "train": "alignmamba.recipes.training_run",
    "write_corpus": "alignmamba.data.archive",
}

if not TYPE_CHECKING:  # a type checker reads the imports above, and so refuses a name that is not there

    def __getattr__(name: str) -> object:
        if name not in _EXPORTS:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}"
            )
        module = import_module(_EXPORTS[name])
        value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
        globals()[name] = value  # the next use does not come back here
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
