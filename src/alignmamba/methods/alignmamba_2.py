"""AlignMamba-2: alignment as a regulariser of training alone, and Mamba with experts of each modality."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from alignmamba.contracts import Batch, Output, TokenVectors
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import Real
from alignmamba.models.encoded import Encoded, FusionConfig, Head, ReadsTokens
from alignmamba.nn.alignment import concatenate
from alignmamba.nn.mamba import MambaConfig
from alignmamba.nn.routed_mamba import RoutedMambaStack
from alignmamba.ops import mmd, transport_distance
from alignmamba.ops.entropic_transport import LEAST_REGULARISATION
from alignmamba.training.objective import Objective


class AlignMamba2Config(FusionConfig, MambaConfig):
    """Everything that defines AlignMamba-2; the fields of the Mamba backbone stand at the top level."""

    no_tokens = ""

    transport: Annotated[float, Field(ge=0)] = 0.001
    """Weight of the transport distance between two modalities' tokens."""
    regularisation: Annotated[float, Field(ge=LEAST_REGULARISATION, allow_inf_nan=False)] = 0.05
    """Regularisation of the transport plan, by its entropy."""
    iterations: Annotated[int, Field(ge=1)] = 30
    """Iterations of Sinkhorn."""
    discrepancy: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the maximum mean discrepancy between them."""
    bandwidth: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Bandwidth of its kernel; none: the root of half the width, so that the exponent is a squared distance
    per channel."""


class AlignMamba2(ReadsTokens[AlignMamba2Config]):
    """Tokens of all modalities one after the other, read by a Mamba with an expert of each modality in its
    projections.

    Li, Xing, Lan, Li, Chen and Jiang, arXiv 2603.18462. *Reconstructed* from the abstract and an unofficial
    reading: alignment costs nothing at inference, since transport distance and MMD are terms of the loss
    alone; in- and out-projections are a shared map plus one of the token's modality, without a router. Chosen
    here: the terms are over the encoded tokens of each sample, for every two modalities, with the cosine
    cost; experts start at zero, so that training starts from a plain Mamba. A missing modality is one learned
    token, in no term.
    """

    config_class = AlignMamba2Config
    summary = "Mamba with shared and modality-specific experts, aligned by losses while training"
    tags = ("mamba", "optimal-transport", "mmd")

    def __init__(self, config: AlignMamba2Config) -> None:
        super().__init__(config, config.d_model)
        self.backbone = RoutedMambaStack(config, len(config.anchors))
        self.head = Head(config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        read, mask, stream = self._joined(encoded)
        embedding = self._pooled(read, mask)
        extras = {
            f"{part} of {name}": value
            for name, s in encoded.items()
            for part, value in (("tokens", s.x), ("mask", s.mask))
        }
        return Output(
            prediction=self.head(embedding),
            embedding=embedding,
            tokens=self._placed(read, mask, stream, encoded, self.config.task.labelled_tokens),
            extras=extras,
        )

    def _tokens_read(self, encoded: Encoded) -> tuple[Mapping[str, TokenVectors], Mapping[str, Tensor]]:
        return self._placed(*self._joined(encoded), encoded, self.config.anchors), {}

    def _joined(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """Output of the backbone for the tokens of all modalities, (batch, time, d_model), its mask, and the
        number of each token's modality.
        """
        marks = torch.eye(len(encoded), dtype=self._weight.dtype, device=self._weight.device)
        streams = [
            replace(
                tokens, x=torch.cat([tokens.x, mark.to(tokens.x.dtype).expand(*tokens.mask.shape, -1)], 2)
            )
            for tokens, mark in zip(self._with_absent(encoded).values(), marks, strict=True)
        ]
        joined, mask, stream = concatenate(list(reversed(streams)))
        tokens, kinds = joined.split([self.config.d_model, len(encoded)], 2)
        return self.backbone(tokens, mask, kinds), mask, stream


class AlignedInTraining(Objective):
    """The task; in training also transport distance and discrepancy between every two modalities."""

    model: AlignMamba2

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        terms = self.supervised(batch, output)
        if not self.training:
            return terms
        config = self.model.config
        moved = apart = torch.zeros(len(batch), device=output.embedding.device)
        for one, other in combinations(config.anchors, 2):
            pair = [
                output.extras[f"{part} of {name}"] for part in ("tokens", "mask") for name in (one, other)
            ]
            if config.transport:
                moved = moved + transport_distance(
                    *pair, regularisation=config.regularisation, iterations=config.iterations
                )
            if config.discrepancy:
                apart = apart + mmd(*pair, bandwidth=config.bandwidth or (config.d_model / 2) ** 0.5)
        return {**terms, "transport": config.transport * moved, "mmd": config.discrepancy * apart}


ALIGNED_IN_TRAINING = Method(
    network=AlignMamba2,
    objective=AlignedInTraining,
    search={
        "options.transport": Real(low=1e-4, high=1e-1, log=True),
        "options.discrepancy": Real(low=1e-3, high=1.0, log=True),
    },
    source="Li et al., 2026, arXiv 2603.18462",
    differs="Encoders and settings are those of AlignMamba here.",
    reconstructed=(
        "From the abstract and an unofficial reading. Over which tokens and pairs the terms go, their weights"
        " and how experts start are chosen here."
    ),
)
