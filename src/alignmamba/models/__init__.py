"""Fusion models. A new one is a file that meets `contracts.FusionModel` and a line here."""

from typing import Any

from alignmamba.models.alignmamba import AlignMamba
from alignmamba.models.fusion import Fusion
from alignmamba.models.multi_stream import LateFusion, MulT, MultiStreamMamba
from alignmamba.models.single_stream import SingleStreamMamba, SingleStreamTransformer

MODELS: dict[str, type[Fusion[Any]]] = {
    "alignmamba": AlignMamba,
    "single-stream-mamba": SingleStreamMamba,
    "multi-stream-mamba": MultiStreamMamba,
    "single-stream-transformer": SingleStreamTransformer,
    "mult": MulT,
    "late-fusion": LateFusion,
}

__all__ = ["MODELS"]
