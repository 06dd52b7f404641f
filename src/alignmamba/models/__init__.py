"""Networks: each takes a batch and predicts; nothing here knows how it is trained."""

from alignmamba.models.alignmamba import AlignMamba
from alignmamba.models.exportable import TensorsIn, exported_program
from alignmamba.models.multi_stream import CrossmodalTransformer, LateFusion, MultiStreamMamba
from alignmamba.models.network import Network
from alignmamba.models.raw_stream import RawStream
from alignmamba.models.single_stream import SingleStreamMamba, SingleStreamTransformer

__all__ = [
    "AlignMamba",
    "CrossmodalTransformer",
    "LateFusion",
    "MultiStreamMamba",
    "Network",
    "RawStream",
    "SingleStreamMamba",
    "SingleStreamTransformer",
    "TensorsIn",
    "exported_program",
]
