"""Transport plans of single samples as plain values, as ``plans.json`` holds them and a page draws them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from alignmamba.contracts import Batch, Corpus, Output, Plan, Sequences, Split
from alignmamba.data.loader import collate
from alignmamba.methods import METHODS
from alignmamba.models.network import Network
from alignmamba.nn.encoders import group_mean
from alignmamba.recipes.configuration import RunConfig

CONTENT_ALONE: Final = "content alone"
"""Name of the ablation in which time has no part in the cost."""
_BATCH_SIZE: Final = 16


def shown_plans(
    config: RunConfig, corpus: Corpus, model: Network[Any], split: Split, rows: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Describe the plans of some samples, one dictionary per row, in the order of the rows.

    Args:
        config: Of the run.
        corpus: Its modalities and task are read.
        model: Makes plans; in evaluation mode, on the CPU.
        split: Of the corpus.
        rows: Places in the split.

    Yields:
        ``id``, ``target``, ``prediction``, ``anchor`` and ``sources``. A source has its matches under
        ``index`` and ``similarity``, and those that content alone would make under ``content``: None where
        the model knows no such variant, or is it already.
    """
    twin = on_content_alone(config, model)
    for start in range(0, len(rows), _BATCH_SIZE):
        batch = collate(
            [split[row] for row in rows[start : start + _BATCH_SIZE]], corpus.modalities, corpus.task
        )
        with torch.no_grad():
            output: Output = model(batch, return_plans=True)
            content = {} if twin is None else twin(batch, return_plans=True).plans or {}
        for row, identity in enumerate(batch.ids):
            yield {
                "id": identity,
                "target": _target(corpus, batch, row),
                "prediction": _prediction(corpus, output.prediction[row]),
                **_shown_plan(model, batch, output.plans or {}, content, row),
            }


def on_content_alone(config: RunConfig, model: Network[Any]) -> Network[Any] | None:
    """Copy a model with the paper's cost, the weights being the same; None where there is no such variant, or
    it is that already.
    """
    ablation = METHODS[config.model].network.ablations.get(CONTENT_ALONE)
    if ablation is None:
        return None
    values = model.config.model_dump(mode="json")
    for field, changes in ablation["options"].items():
        values[field] = {**values[field], **changes}
    other = type(model).config_class.model_validate(values)
    if other == model.config:
        return None
    twin = type(model)(other)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def token_count(model: Network[Any], batch: Batch, name: str, row: int) -> int:
    """Tokens of a sample's modality after its encoder's stride."""
    return -(-int(batch.modalities[name].mask[row].sum()) // _stride(model, name))


def token_times(model: Network[Any], sequences: Sequences, name: str) -> Tensor | None:
    """(batch, tokens) seconds of a modality's tokens after its encoder's stride, or None where no sample
    brings times.
    """
    if sequences.times is None:
        return None
    return group_mean(sequences.times.double(), sequences.mask, _stride(model, name))[0]


def token_words(model: Network[Any], sequences: Sequences, name: str, row: int) -> list[str] | None:
    """Words shown of each token: the one in the middle of each group that the encoder's stride makes one."""
    words = () if sequences.tokens is None else sequences.tokens[row]
    stride = _stride(model, name)
    return (
        [words[min(start + stride // 2, len(words) - 1)] for start in range(0, len(words), stride)]
        if words
        else None
    )


def _stride(model: Network[Any], name: str) -> int:
    return model.strides[name]


def _target(corpus: Corpus, batch: Batch, row: int) -> float | str | None:
    if batch.targets is None:
        return None
    return (
        float(batch.targets[row])
        if corpus.task.kind == "regression"
        else corpus.task.classes[int(batch.targets[row])]
    )


def _prediction(corpus: Corpus, prediction: Tensor) -> float | str:
    return (
        float(prediction)
        if corpus.task.kind == "regression"
        else corpus.task.classes[int(prediction.argmax())]
    )


def _shown_plan(
    model: Network[Any], batch: Batch, plans: Mapping[str, Plan], content: Mapping[str, Plan], row: int
) -> dict[str, Any]:
    """One sample's anchor and sources with what matches what."""
    present = [
        name
        for name in model.config.anchors
        if name in batch.modalities and bool(batch.modalities[name].mask[row].any())
    ]
    anchor = present[0]
    sources = []
    for name in present[1:]:
        if name not in plans:
            continue
        length = token_count(model, batch, name if plans[name].marginal == "source" else anchor, row)
        sources.append(
            {
                **_shown_tokens(model, batch, name, row),
                "marginal": plans[name].marginal,
                **_matches(plans[name], row, length),
                "content": _matches(content[name], row, length) if name in content else None,
            }
        )
    return {"anchor": _shown_tokens(model, batch, anchor, row), "sources": sources}


def _matches(plan: Plan, row: int, length: int) -> dict[str, Any]:
    return {
        "index": plan.index[row, :length].tolist(),
        "similarity": [round(float(value), 4) for value in plan.similarity[row, :length]],
    }


def _shown_tokens(model: Network[Any], batch: Batch, name: str, row: int) -> dict[str, Any]:
    sequences = batch.modalities[name]
    length = token_count(model, batch, name, row)
    times = token_times(model, sequences, name)
    known = times is not None and bool(times[row, :length].isfinite().all())
    return {
        "modality": name,
        "length": length,
        "tokens": token_words(model, sequences, name, row),
        "times": [round(float(value), 4) for value in times[row, :length]]
        if times is not None and known
        else None,
    }
