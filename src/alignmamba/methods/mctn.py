"""MCTN: the anchor is translated into the others and back; its code predicts, and it alone is read."""

from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Name, Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import LOSS_WEIGHT
from alignmamba.models.encoded import Encoded, Fusion, Head, PlainFusionConfig
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.recurrent import Recurrent
from alignmamba.ops import resample


class MCTNConfig(PlainFusionConfig):
    """Everything that defines MCTN."""

    method = "MCTN"
    least_modalities = 2
    targets: tuple[Name, ...] = ()
    """Modalities into which the anchor is translated, in that order, the first one back again; empty: all
    others, the last one first."""
    d_model: Annotated[int, Field(ge=1)] = 32
    """Width of a code, and of the states of a decoder."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Width of the recurrent layer that reads the last code."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the codes that a decoder reads."""
    translation: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the error of each translation."""
    cycle: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the error of the translation back."""

    @model_validator(mode="after")
    def _translatable(self) -> Self:
        others = self.anchors[1:]
        if self.targets and sorted(self.targets) != sorted(others):
            raise ValueError(
                f"targets: expected each of {list(others)} once, in any order, found {list(self.targets)}"
            )
        return self

    @property
    def order(self) -> tuple[str, ...]:
        """Modalities into which the anchor is translated."""
        return self.targets or tuple(reversed(self.anchors[1:]))


class Reader(nn.Module):
    """Sum of the states of an LSTM that reads forward and one that reads backward, as long as its input."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.recurrent = Recurrent(width, hidden, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) with a mask to (batch, time, hidden), zero where not valid."""
        forward, backward = self.recurrent(x, mask).tokens.chunk(2, 2)
        merged: Tensor = forward + backward
        return merged


class Writer(nn.Module):
    """An LSTM that attends to a code, and at every step reads what it wrote at the one before.

    Args:
        width: Channels of the code, and of its own state.
        out: Channels of what it writes.
        dropout: Of the code.
    """

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.key, self.query, self.score = (
            nn.Linear(width, width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, 1, bias=False),
        )
        self.cell = nn.LSTMCell(width + out, width)
        self.write = nn.Linear(width, out)

    def forward(self, code: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) with a mask, no sample empty, to (batch, time, out)."""
        code = self.dropout(code)
        keys = self.key(code)
        state = cell = code.new_zeros(len(code), code.shape[2])
        written = self.write(state)
        steps = []
        for _ in range(code.shape[1]):
            scores = self.score((keys + self.query(state).unsqueeze(1)).tanh()).masked_fill(
                ~mask.unsqueeze(2), -torch.inf
            )
            heard = (scores.softmax(1) * code).sum(1)
            state, cell = self.cell(torch.cat([heard, written], 1), (state, cell))
            written = self.write(state)
            steps.append(written)
        return torch.stack(steps, 1)


class MCTN(Fusion[MCTNConfig]):
    """Levels of translation, each of which reads the code of the one before; the last code predicts.

    Pham, Liang, Manzini, Morency and Poczos, "Found in Translation: Learning Robust Joint Representations by
    Cyclic Translations Between Modalities", AAAI 2019, arXiv 1812.07809, and the code of its authors. Kept:
    the first level translates there and back with one encoder and one decoder, the further ones there alone;
    sums of directions, decoders that attend, sizes, weights, and the anchor as the only input. Linear maps
    stand where a shared encoder and decoder meet modalities of unequal widths. Each target is resampled to
    the anchor's length by shares of time, since the length of what is not read cannot be known. Not kept: the
    penalty on the weights of the last layer. Not repeated: a forget gate made of the input gate's weights,
    decoders that never leave -1 to 1, losses over padding. A sample that lacks a target has no such term; one
    that lacks the anchor is predicted from the token of its absence.
    """

    config_class = MCTNConfig
    summary = "The anchor is translated into the others and back; its code predicts, and it alone is read"
    unexported = "translates one token after the other, as many as its input has"

    def __init__(self, config: MCTNConfig) -> None:
        super().__init__(config, config.d_model)
        anchor, order = config.anchors[0], config.order
        for name in order:
            self.absent_tokens[name].requires_grad_(False)  # never read
        widths = {name: self._encoder(name).width for name in config.anchors}
        both = (anchor, order[0])
        self.enter = ModulesByName({name: nn.Linear(widths[name], config.d_model) for name in both})
        self.leave = ModulesByName({name: nn.Linear(config.d_model, widths[name]) for name in both})
        self.readers = ModulesByName({name: Reader(config.d_model, config.d_model) for name in order})
        outs = {name: config.d_model if name == order[0] else widths[name] for name in order}
        self.writers = ModulesByName(
            {name: Writer(config.d_model, outs[name], config.dropout) for name in order}
        )
        self.states = Recurrent(config.d_model, config.hidden)
        self.score = nn.Sequential(nn.Linear(config.hidden, 1), nn.Tanh())
        self.head = Head(config.hidden, config.task, dropout=0.0)

    def _read(self, encoded: Encoded) -> Output:
        anchor, order = self.config.anchors[0], self.config.order
        source = self._with_absent({anchor: encoded[anchor]})[anchor]
        codes, code = {}, self.enter[anchor](source.x)
        for name in order:
            code = codes[name] = self.readers[name](code, source.mask)
        states = self.states(code, source.mask).tokens
        shares = self.score(states).masked_fill(~source.mask.unsqueeze(2), -torch.inf).softmax(1)
        embedding = (shares * states).sum(1)
        losses = self._errors(encoded, source.mask, codes) if self.training else {}
        return Output(prediction=self.head(embedding), embedding=embedding, losses=losses)

    def translations(self, mask: Tensor, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens by modality, the anchor last, as decoded: (batch, anchor time, its channels).

        Args:
            mask: (batch, anchor time) bool.
            codes: Of each level, (batch, anchor time, d_model).
        """
        anchor, first, *further = (self.config.anchors[0], *self.config.order)
        said = {first: self.leave[first](self.writers[first](codes[first], mask))}
        said |= {name: self.writers[name](codes[name], mask) for name in further}
        back = self.readers[first](self.enter[first](said[first]), mask)
        return said | {anchor: self.leave[anchor](self.writers[first](back, mask))}

    def _errors(self, encoded: Encoded, mask: Tensor, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weighted terms, each (batch,): mean squared errors in the samples that have anchor and target."""
        anchor = self.config.anchors[0]
        terms = {}
        for name, said in self.translations(mask, codes).items():
            target = encoded[name]
            known = target.mask.any(1) & encoded[anchor].mask.any(1)
            truth = resample(target.x.detach(), target.mask, mask)
            error = (said - truth).square().mean(2).masked_fill(~mask, 0).sum(1) / mask.sum(1)
            term, weight = (
                ("cycle", self.config.cycle)
                if name == anchor
                else (f"translation.{name}", self.config.translation)
            )
            terms[term] = weight * error.masked_fill(~known, 0)
        # A translation back through a target that a sample lacks is taught by nothing on its way.
        there = encoded[self.config.order[0]].mask.any(1)
        return terms | {"cycle": terms["cycle"].masked_fill(~there, 0)}


CYCLIC_TRANSLATION = Method(
    network=MCTN,
    settings={
        "loader": {"batch_size": 32},
        "fit": {
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 0.0,
            "epochs": 200,
            "patience": 20,
            "regression_loss": "l1",
        },
    },
    search={"options.translation": LOSS_WEIGHT, "options.cycle": LOSS_WEIGHT},
    source="Pham et al., AAAI 2019, arXiv 1812.07809",
    needs="two or more modalities; where the anchor is missing, the prediction knows nothing of the sample",
    differs=(
        "Targets are resampled to the anchor's length, and are those that a run leaves in the"
        " train split, not"
        " what it withholds. Linear maps let one encoder and decoder serve modalities of unequal widths. No"
        " penalty on the last layer's weights."
    ),
)
