"""Fusion methods by name. A new one is a file with a `Method`, and a line here."""

from pathlib import Path
from typing import Any, Final

from alignmamba.errors import CheckpointError, shown
from alignmamba.files import read_json
from alignmamba.methods.alignmamba_2 import ALIGNED_IN_TRAINING
from alignmamba.methods.aobert import ALL_IN_ONE
from alignmamba.methods.best_constant import BEST_CONSTANT
from alignmamba.methods.cm_bert import MASKED_ATTENTION
from alignmamba.methods.co_attention import CO_ATTENTION
from alignmamba.methods.confede import CONTRASTED_PARTS
from alignmamba.methods.dcca import CORRELATED_AUTOENCODERS, CORRELATED_VIEWS
from alignmamba.methods.dmd import DECOUPLED_DISTILLATION
from alignmamba.methods.fdmer import ADVERSARIAL_PARTS
from alignmamba.methods.fusion_mamba import DUAL_STATE_SPACE
from alignmamba.methods.gcnet import GRAPH_COMPLETION
from alignmamba.methods.hycon import HYBRID_CONTRAST
from alignmamba.methods.iccn import INTERACTIONS
from alignmamba.methods.imder import SCORE_RECOVERY
from alignmamba.methods.lmf import LOW_RANK_FUSION
from alignmamba.methods.mag_bert import ADAPTATION_GATE
from alignmamba.methods.mctn import CYCLIC_TRANSLATION
from alignmamba.methods.method import Method
from alignmamba.methods.misa import INVARIANT_AND_SPECIFIC
from alignmamba.methods.mmim import MULTIMODAL_INFOMAX
from alignmamba.methods.mmin import IMAGINATION_NETWORK
from alignmamba.methods.mtmd import MOMENTUM_DISTILLATION
from alignmamba.methods.mult import MULTIMODAL_TRANSFORMER, MulTConfig
from alignmamba.methods.pan_mamba import CHANNEL_SWAPPING
from alignmamba.methods.pooled_linear import POOLED_LINEAR
from alignmamba.methods.q_former import QUERYING_TRANSFORMER
from alignmamba.methods.search_space import LOSS_WEIGHT, Choice, Names, SearchSpace
from alignmamba.methods.self_mm import SELF_MM
from alignmamba.methods.tfn import TENSOR_FUSION
from alignmamba.methods.ulgm import UNIMODAL_LABELS
from alignmamba.models.alignmamba import AlignMamba
from alignmamba.models.multi_stream import CrossmodalTransformer, LateFusion, MultiStreamMamba
from alignmamba.models.network import Network
from alignmamba.models.pretrained import CONFIG_FILE, fetched
from alignmamba.models.single_stream import SingleStreamMamba, SingleStreamTransformer

_ALONE: Final[SearchSpace] = {"options.unimodal_weight": Choice((0.0, 0.2, 0.5, 1.0))}

FAMILIES: Final[dict[str, Method]] = {
    "alignmamba": Method(
        network=AlignMamba,
        search={
            "options.alignment.weight": LOSS_WEIGHT,
            "options.local.method": Names(("match", "soft")),
            "options.local.time_weight": Choice((0.0, 10.0, 100.0, 1000.0)),
            "options.local.time_unit": Names(("relative", "seconds")),
            **_ALONE,
        },
        source="Li et al., CVPR 2025, arXiv 2412.00833",
        differs=(
            "The default preset adds branches, losses and weights of each modality, pooling by modality,"
            " centring, wider convolutions and a prior on time. `--preset paper` adds nothing."
        ),
    ),
    "single-stream-mamba": Method(network=SingleStreamMamba),
    "multi-stream-mamba": Method(network=MultiStreamMamba, search=_ALONE),
    "single-stream-transformer": Method(network=SingleStreamTransformer),
    "crossmodal-transformer": Method(
        network=CrossmodalTransformer, search=_ALONE, needs="two modalities or more"
    ),
    "late-fusion": Method(network=LateFusion, search=_ALONE),
}
"""AlignMamba and the families of the paper's comparison, each reduced to its idea, on one kind of encoder."""

REFERENCES: Final[dict[str, Method]] = {"best-constant": BEST_CONSTANT, "pooled-linear": POOLED_LINEAR}
"""Methods that look at no order and are solved, not trained: what any network has to beat."""

METHODS: Final[dict[str, Method]] = {
    **FAMILIES,
    "alignmamba-2": ALIGNED_IN_TRAINING,
    "fdmer": ADVERSARIAL_PARTS,
    "hycon": HYBRID_CONTRAST,
    "misa": INVARIANT_AND_SPECIFIC,
    "tfn": TENSOR_FUSION,
    "co-attention": CO_ATTENTION,
    "q-former": QUERYING_TRANSFORMER,
    "pan-mamba": CHANNEL_SWAPPING,
    "fusion-mamba": DUAL_STATE_SPACE,
    "mult": MULTIMODAL_TRANSFORMER,
    "lmf": LOW_RANK_FUSION,
    "self-mm": SELF_MM,
    "mmim": MULTIMODAL_INFOMAX,
    "ulgm": UNIMODAL_LABELS,
    "mtmd": MOMENTUM_DISTILLATION,
    "dcca": CORRELATED_VIEWS,
    "dccae": CORRELATED_AUTOENCODERS,
    "iccn": INTERACTIONS,
    "mag-bert": ADAPTATION_GATE,
    "mctn": CYCLIC_TRANSLATION,
    "mmin": IMAGINATION_NETWORK,
    "cm-bert": MASKED_ATTENTION,
    "gcnet": GRAPH_COMPLETION,
    "imder": SCORE_RECOVERY,
    "confede": CONTRASTED_PARTS,
    "aobert": ALL_IN_ONE,
    "dmd": DECOUPLED_DISTILLATION,
    **REFERENCES,
}
"""Every method by the name that people type."""

SETS: Final[dict[str, tuple[str, ...]]] = {
    "families": tuple(FAMILIES),
    "references": tuple(REFERENCES),
    "table1": ("dcca", "dccae", "mctn", "mmin", "gcnet", "imder"),
    "table2": (
        "mult",
        "fdmer",
        "hycon",
        "misa",
        "self-mm",
        "mmim",
        "ulgm",
        "mtmd",
        "iccn",
        "mag-bert",
        "cm-bert",
        "confede",
        "aobert",
        "dmd",
    ),
    "all": tuple(METHODS),
}
"""Names that stand for several methods where an experiment is given models: the paper's tables among them."""

FORMER: Final[dict[str, tuple[frozenset[str], str]]] = {
    "mult": (MulTConfig.FORMER_OPTIONS, MulTConfig.FORMER_NAME)
}
"""Names that meant another network in an earlier version: options by which its runs are known, and what to
say of them."""


def from_pretrained(
    source: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> Network[Any]:
    """Load a saved network of whatever method it is, in evaluation mode.

    Args:
        source: A folder that ``save_pretrained`` wrote, the directory of a run, or the name of a repository
            on the Hugging Face Hub.
        revision: Branch, tag or commit of a Hub repository.
        local_files_only: Whether to look for a Hub repository in the local cache alone.

    Raises:
        CheckpointError: If a file is missing or damaged, or the network is of no method here; the message
            names it.
    """
    folder = fetched(source, revision=revision, local_files_only=local_files_only)
    if not (folder / CONFIG_FILE).exists() and (folder / "model" / CONFIG_FILE).exists():
        folder = folder / "model"  # of a run
    description = read_json(folder / CONFIG_FILE, error=CheckpointError)
    found = description.get("model_type") if isinstance(description, dict) else None
    networks = {method.network.__name__: method.network for method in METHODS.values()}
    if not isinstance(found, str) or found not in networks:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: model_type: found {shown(found)}, expected one of {', '.join(networks)}"
        )
    return networks[found].from_pretrained(folder)
