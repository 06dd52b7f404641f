"""Fusion models. A new one is a file that meets `contracts.FusionModel` and a line here."""

from alignmamba.models.alignmamba import AlignMamba

MODELS = {"alignmamba": AlignMamba}

__all__ = ["MODELS"]
