"""Operators of AlignMamba: pure functions of tensors, masked, differentiable, (batch, time, channel)."""

from alignmamba.ops.backends import operator_backends
from alignmamba.ops.convolution import causal_conv
from alignmamba.ops.discrepancy import central_moment_discrepancy, mmd, subspace_overlap
from alignmamba.ops.entropic_transport import SoftTransport, soft_transport, transport_distance
from alignmamba.ops.order_contrast import order_contrast
from alignmamba.ops.ordered_matching import match_in_order
from alignmamba.ops.scan import selective_scan, selective_scan_step
from alignmamba.ops.sequence import (
    deinterleave,
    interleave,
    last_valid,
    masked_max,
    masked_mean,
    relative_time,
    reverse_valid,
)
from alignmamba.ops.time_contrast import time_contrast
from alignmamba.ops.transport import match_tokens, resample, transport, transport_plan

__all__ = [
    "SoftTransport",
    "causal_conv",
    "central_moment_discrepancy",
    "deinterleave",
    "interleave",
    "last_valid",
    "masked_max",
    "masked_mean",
    "match_in_order",
    "match_tokens",
    "mmd",
    "operator_backends",
    "order_contrast",
    "relative_time",
    "resample",
    "reverse_valid",
    "selective_scan",
    "selective_scan_step",
    "soft_transport",
    "subspace_overlap",
    "time_contrast",
    "transport",
    "transport_distance",
    "transport_plan",
]
