"""Difference of two sequences (MMD, Li et al., arXiv 2412.00833, section 3.3), and of two batches."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.backends import KERNELS, Backend, chosen, refuse_transforms, why_not, without_autocast
from alignmamba.ops.sequence import check_mask

Bandwidth = float | Literal["median"]

# Float64 kernel entries of one tile over the whole batch, 16 MB; tiles are recomputed in the backward pass,
# so memory stays linear.
_TILE_ENTRIES = 2**21

# `alignmamba.ops.gpu.discrepancy.MOST_CHANNELS`, which is not imported where there is no GPU.
_MOST_CHANNELS_ON_GPU = 1024

_LARGEST_EXPONENT_ERROR = 1e-4
"""Largest relative error of an entry in single precision, above which the CPU takes double."""

# Kernel entries between landmarks and a chunk of tokens: 1 MB in single precision, which stays in the second
# cache.
_CHUNK_ENTRIES = 2**18

# Added to the diagonal of the kernel between landmarks, whose own diagonal is one.
_RIDGE = 1e-6

# The median heuristic looks at no more than this many tokens of either side, evenly spaced.
_MEDIAN_TOKENS = 256


def mmd(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    *,
    bandwidth: Bandwidth,
    unbiased: bool = False,
    landmarks: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""Squared maximum mean discrepancy between the valid tokens of two sequences, sample by sample.

    With ``k(a, b) = exp(-|a - b|^2 / (2 sigma^2))``::

        MMD^2(X, Y) = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

    Exact, O(time^2 channel) in time and linear in memory; with `landmarks` approximate and linear in time.

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), of the same dtype.
        x_mask: (batch, x time) bool.
        y_mask: (batch, y time) bool.
        bandwidth: sigma, or ``"median"``: the median distance between distinct valid tokens of the sample's X
            and Y together, without gradient; 1 where it is zero.
        unbiased: Leave the diagonal out of the two self terms (U-statistic), unlike the paper (V-statistic).
        landmarks: Approximate the kernel by what this many tokens span (Nystrom), half of either side; an odd
            one is of x.
        backend: As for `alignmamba.ops.selective_scan`.

    Returns:
        (batch,), float32 or float64. Zero for a sample where a side has no valid token (with `unbiased`:
        fewer than two).

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit.
        ConfigError: If `bandwidth` is not positive, or there are fewer than 2 landmarks.
        BackendError: If the named backend cannot serve these tensors.

    Source:
        Li et al., arXiv:2412.00833, eq. 8-9; Gretton et al., JMLR 2012, eq. 3 (unbiased) and 5 (biased);
        Williams & Seeger, NIPS 2000 (Nystrom).
    """
    _check_mmd(x, y, x_mask, y_mask, bandwidth, landmarks)
    refused = {}
    if landmarks is not None:
        refused = dict.fromkeys(KERNELS["mmd"], "with landmarks it is computed by PyTorch")
        backend = "torch" if backend == "auto" else backend  # the best there is, so nothing to warn of
    elif x.shape[2] > _MOST_CHANNELS_ON_GPU:
        refused = {"triton": f"it takes at most {_MOST_CHANNELS_ON_GPU} channels, found {x.shape[2]}"}
    use = chosen("mmd", backend, x.device, x.dtype, refused)
    with without_autocast(x.device):
        # Zero in place of what is not valid: garbage there, infinities included, must not reach a product.
        x, y = (side.masked_fill(~mask.unsqueeze(-1), 0) for side, mask in ((x, x_mask), (y, y_mask)))
        fixed = None if isinstance(bandwidth, str) else float(bandwidth)
        if landmarks is not None:
            return _nystrom(x, y, x_mask, y_mask, fixed, landmarks, unbiased=unbiased)
        if use == "torch":
            return _reference(x, y, x_mask, y_mask, fixed, unbiased=unbiased)
        need_gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
        value: Tensor = _fused(x, y, x_mask, y_mask, fixed, unbiased, need_gradient)[0]
        return value


def _check_mmd(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, bandwidth: Bandwidth, landmarks: int | None
) -> None:
    check_mask("x_mask", x_mask, x)
    check_mask("y_mask", y_mask, y)
    one, other = ((side.shape[0], side.shape[2], side.dtype, side.device) for side in (x, y))
    if one != other or not x.is_floating_point():
        found = (
            f"x is {x.dtype} of shape {tuple(x.shape)} on {x.device}, y {y.dtype} of shape {tuple(y.shape)}"
            f" on {y.device}"
        )
        raise ShapeError(f"{found}: expected equal batch, channel, device and floating dtype")
    if isinstance(bandwidth, str) and bandwidth != "median":
        raise ConfigError(f"bandwidth: expected a positive number or 'median', found {bandwidth!r}")
    if not isinstance(bandwidth, str) and not (
        isinstance(bandwidth, int | float) and 1e-100 <= bandwidth <= 1e100
    ):
        raise ConfigError(f"bandwidth: expected a number from 1e-100 to 1e100 or 'median', found {bandwidth}")
    if landmarks is not None and (not isinstance(landmarks, int) or landmarks < 2):
        raise ConfigError(f"landmarks: expected a whole number, at least 2, found {landmarks}")


def central_moment_discrepancy(x: Tensor, y: Tensor, *, moments: int = 5) -> Tensor:
    r"""Distance of two batches of vectors: between their means, and between their central moments, channel by
    channel.

    ``CMD = |mean(x) - mean(y)| + sum over k from 2 to moments of |c_k(x) - c_k(y)|``, for values in an
    interval of length 1. The gradient of a distance of zero is zero.

    Args:
        x: (samples, channel).
        y: (other samples, channel).
        moments: Highest moment compared.

    Returns:
        (), at least float32; zero where the batches hold the same rows in any order.

    Raises:
        ShapeError: If the widths differ, or a batch is empty.

    Source:
        Zellinger et al., ICLR 2017, arXiv:1702.08811, eq. 2.
    """
    x, y = _two_batches(x, y)
    means = x.mean(0), y.mean(0)
    total: Tensor = torch.linalg.vector_norm(means[0] - means[1])
    for power in range(2, moments + 1):
        one, other = ((side - mean).pow(power).mean(0) for side, mean in zip((x, y), means, strict=True))
        total = total + torch.linalg.vector_norm(one - other)
    return total


def subspace_overlap(x: Tensor, y: Tensor) -> Tensor:
    r"""Mean square of ``x^T y`` of two batches of vectors about their means, each row at length 1: zero where
    no channels correlate.

    The lengths of rows are constants to the gradient.

    Args:
        x: (samples, channel) of some samples.
        y: (samples, other channel) of the same ones.

    Returns:
        (), at least float32.

    Raises:
        ShapeError: If the numbers of samples differ, or there are none.

    Source:
        Bousmalis et al., NIPS 2016, arXiv:1608.06019, eq. 5, with the norms and the mean of the code of
        Hazarika et al., arXiv:2005.03545.
    """
    if x.ndim == y.ndim == 2 and len(x) != len(y):
        raise ShapeError(f"x and y: expected as many samples, found {len(x)} and {len(y)}")
    x, y = _two_batches(x, y, of_width=False)
    centred = (side - side.mean(0) for side in (x, y))
    one, other = (
        side / (torch.linalg.vector_norm(side.detach(), dim=1, keepdim=True) + 1e-6) for side in centred
    )
    with without_autocast(x.device):
        overlap: Tensor = (one.T @ other).square().mean()
    return overlap


def _two_batches(x: Tensor, y: Tensor, *, of_width: bool = True) -> tuple[Tensor, Tensor]:
    """Both in single precision at least, after a look at their shapes."""
    if x.ndim != 2 or y.ndim != 2 or not len(x) or not len(y) or (of_width and x.shape[1] != y.shape[1]):
        raise ShapeError(
            f"x and y: expected (samples, channel) of one width, found {tuple(x.shape)} and {tuple(y.shape)}"
        )
    one, other = (side if side.dtype == torch.float64 else side.float() for side in (x, y))
    return one, other


def _reference(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, bandwidth: float | None, *, unbiased: bool
) -> Tensor:
    """The definition, in double precision; no bandwidth stands for the median."""
    result_dtype = torch.promote_types(x.dtype, torch.float32)
    x, y = _centred(x.double(), y.double(), x_mask, y_mask)
    scale = _scale(x, y, x_mask, y_mask, bandwidth)
    sums = (
        _kernel_sum(x, x, x_mask, x_mask, scale),
        _kernel_sum(y, y, y_mask, y_mask, scale),
        _kernel_sum(x, y, x_mask, y_mask, scale),
    )
    weights, constant = _weights(x_mask, y_mask, unbiased=unbiased)
    value = (weights * torch.stack(sums)).sum(0) + constant
    return value.to(result_dtype)


def _nystrom(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    bandwidth: float | None,
    landmarks: int,
    *,
    unbiased: bool,
) -> Tensor:
    """Features ``phi(a)``: with ``phi(a) = L^-1 k(Z, a)`` and ``L L^T = k(Z, Z)``, every ``k(a, b)`` off the
    diagonal is taken as ``phi(a) . phi(b)``.
    """
    result_dtype = torch.promote_types(x.dtype, torch.float32)
    x, y = _centred(x.to(result_dtype), y.to(result_dtype), x_mask, y_mask)
    scale = _scale(x, y, x_mask, y_mask, bandwidth)
    with torch.no_grad():
        halves = (landmarks + 1) // 2, landmarks // 2
        sides = [
            _evenly_spaced(tokens, mask, most)
            for tokens, mask, most in zip((x, y), (x_mask, y_mask), halves, strict=True)
        ]
        z, z_mask = (torch.cat(parts, 1) for parts in zip(*sides, strict=True))
        both = z_mask.unsqueeze(2) & z_mask.unsqueeze(1)
        gram = torch.exp(-scale[:, None, None] * _squared_distance(z.double(), z.double())).masked_fill(
            ~both, 0
        )
        # Equal landmarks make the matrix singular; a landmark that is not valid stands alone and answers
        # nothing.
        ridge = torch.where(z_mask, _RIDGE, 1.0).double()
        # Without an error where a sample holds NaN: its own value is NaN, its neighbours' are not.
        factor = torch.linalg.cholesky_ex(gram + torch.diag_embed(ridge)).L
    n, m = (mask.sum(1).double() for mask in (x_mask, y_mask))
    means, own = [], []
    for tokens, mask in ((x, x_mask), (y, y_mask)):
        sums, products = _landmark_sums(tokens, mask, z, z_mask, scale)
        means.append(torch.linalg.solve_triangular(factor, sums.unsqueeze(2), upper=False).squeeze(2))
        # sum |L^-1 k|^2 = trace((L L^T)^-1 sum k k^T)
        own.append(torch.cholesky_solve(products, factor).diagonal(dim1=1, dim2=2).sum(1))
    # The diagonal of a self term is one for every valid token, whatever the features say.
    sums = (
        means[0].square().sum(1) - own[0] + n,
        means[1].square().sum(1) - own[1] + m,
        (means[0] * means[1]).sum(1),
    )
    weights, constant = _weights(x_mask, y_mask, unbiased=unbiased)
    value = (weights * torch.stack(sums)).sum(0) + constant
    return value.to(result_dtype)


@torch.library.custom_op("alignmamba::landmark_sums", mutates_args=())
def _landmark_sums(
    tokens: Tensor, mask: Tensor, z: Tensor, z_mask: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over valid tokens of k(Z, a), (batch, landmark), and, without gradient, of k(Z, a) k(Z, a)^T;
    float64, chunk by chunk.

    The inverse of the landmarks' kernel multiplies the products by up to 1 / ridge, a million, and their
    rounding with them: so they are formed in double precision. Entries themselves are multiplied by its root
    alone, which single precision bears.
    """
    tokens, z = _sharp(tokens, z, scale)
    sums = torch.zeros(z.shape[:2], dtype=torch.float64, device=z.device)
    products = sums.new_zeros(*z.shape[:2], z.shape[1])
    for chunk in _chunks(tokens, z):
        entries = _landmark_entries(tokens[:, chunk], mask[:, chunk], z, z_mask, scale)
        sums += entries.sum(2, dtype=torch.float64)
        exact = entries.double()
        products += exact @ exact.transpose(1, 2)
    return sums, products


@torch.library.custom_op("alignmamba::landmark_sums_backward", mutates_args=())
def _landmark_sums_backward(
    tokens: Tensor, mask: Tensor, z: Tensor, z_mask: Tensor, scale: Tensor, grad: Tensor
) -> Tensor:
    """Gradient of the sums with respect to the tokens."""
    result = tokens.new_empty(tokens.shape)
    tokens, z = _sharp(tokens, z, scale)
    slope = (-2 * scale).to(tokens.dtype)[:, None, None]
    for chunk in _chunks(tokens, z):
        part = tokens[:, chunk]
        weighted = _landmark_entries(part, mask[:, chunk], z, z_mask, scale).mul_(
            grad.to(tokens.dtype).unsqueeze(2)
        )
        result[:, chunk] = slope * (weighted.sum(1).unsqueeze(2) * part - weighted.transpose(1, 2) @ z)
    return result


@_landmark_sums.register_fake
def _(tokens: Tensor, mask: Tensor, z: Tensor, *_: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    sums = z.new_empty(z.shape[:2], dtype=torch.float64)
    return sums, sums.new_empty(*z.shape[:2], z.shape[1])


@_landmark_sums_backward.register_fake
def _(tokens: Tensor, *_: Any) -> Tensor:
    return tokens.new_empty(tokens.shape)


def _keep_tokens(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.mark_non_differentiable(output[1])


def _differentiate_sums(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return _landmark_sums_backward(*ctx.saved_tensors, grad), None, None, None, None


_landmark_sums.register_autograd(_differentiate_sums, setup_context=_keep_tokens)
refuse_transforms("mmd", _landmark_sums, backward=_landmark_sums_backward)


def _sharp(tokens: Tensor, z: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and landmarks in double precision where single precision would not serve."""
    if tokens.dtype == torch.float64 or _single_precision_serves(tokens, z, scale):
        return tokens, z
    return tokens.double(), z.double()


def _chunks(tokens: Tensor, z: Tensor) -> list[slice]:
    """Tokens whose kernel entries with the landmarks are held at once."""
    length = max(64, _CHUNK_ENTRIES // max(1, z.shape[0] * z.shape[1]))
    return [slice(start, start + length) for start in range(0, tokens.shape[1], length)]


def _landmark_entries(tokens: Tensor, mask: Tensor, z: Tensor, z_mask: Tensor, scale: Tensor) -> Tensor:
    """(batch, landmark, time): k(Z, a), zero where either is not valid."""
    entries = _squared_distance(z, tokens).mul_(-scale.to(z.dtype)[:, None, None]).exp_()
    return entries.masked_fill_(~(z_mask.unsqueeze(2) & mask.unsqueeze(1)), 0)


def _weights(x_mask: Tensor, y_mask: Tensor, *, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Factors of the sums of k(x, x'), k(y, y') and k(x, y), (3, batch), and what is added, (batch,)."""
    n, m = (mask.sum(1).double() for mask in (x_mask, y_mask))
    if unbiased:
        # The diagonal of a self term, one for every valid token, is taken out again.
        defined = ((n > 1) & (m > 1)).double()
        weights = torch.stack(
            [1 / (n * (n - 1)).clamp(min=1), 1 / (m * (m - 1)).clamp(min=1), -2 / (n * m).clamp(min=1)]
        )
        constant = -n * weights[0] - m * weights[1]
    else:
        defined = ((n > 0) & (m > 0)).double()
        weights = torch.stack(
            [1 / n.square().clamp(min=1), 1 / m.square().clamp(min=1), -2 / (n * m).clamp(min=1)]
        )
        constant = torch.zeros_like(n)
    return weights * defined, constant * defined


def _centred(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides about the mean of all valid tokens, where |x|^2 + |y|^2 - 2xy cancels least."""
    count = (x_mask.sum(1) + y_mask.sum(1)).clamp(min=1)
    centre = (
        x.detach().sum(1, dtype=torch.float64) + y.detach().sum(1, dtype=torch.float64)
    ) / count.unsqueeze(1)
    centre = centre.to(x.dtype).unsqueeze(1)
    x, y = ((side - centre).masked_fill(~mask.unsqueeze(-1), 0) for side, mask in ((x, x_mask), (y, y_mask)))
    return x, y


def _scale(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, bandwidth: float | None) -> Tensor:
    """1 / (2 sigma^2), (batch,) float64."""
    if bandwidth is not None:
        return torch.full((len(x),), 0.5 / bandwidth**2, dtype=torch.float64, device=x.device)
    with torch.no_grad():
        sides = (_evenly_spaced(tokens, mask, _MEDIAN_TOKENS) for tokens, mask in ((x, x_mask), (y, y_mask)))
        return 0.5 / _median_distance(*(tensor for side in sides for tensor in side)).square()


@torch.library.custom_op("alignmamba::mmd", mutates_args=())
def _fused(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    bandwidth: float | None,
    unbiased: bool,
    need_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The value by the kernels of the tensors' device, and its gradients; empty where they are not needed."""
    weights, constant = _weights(x_mask, y_mask, unbiased=unbiased)
    working = torch.promote_types(x.dtype, torch.float32)
    near = _centred(x.to(working), y.to(working), x_mask, y_mask)
    scale = _scale(*near, x_mask, y_mask, bandwidth)
    if x.device.type == "cpu":
        from alignmamba.ops.cpu.discrepancy import weighted_kernel_sum

        if working == torch.float32 and not _single_precision_serves(*near, scale):
            near = _centred(x.double(), y.double(), x_mask, y_mask)
    else:
        from alignmamba.ops.gpu.discrepancy import weighted_kernel_sum
    total, *grads = weighted_kernel_sum(*near, x_mask, y_mask, scale, weights, need_gradient=need_gradient)
    # Gradients keep the working precision until the one that arrives has been multiplied in, as scaled losses
    # want it.
    grad_x, grad_y = (x.new_empty(0, dtype=working) if grad is None else grad.to(working) for grad in grads)
    return (total + constant).to(working), grad_x, grad_y


@_fused.register_fake
def _(x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    value = x.new_empty(len(x), dtype=torch.promote_types(x.dtype, torch.float32))
    return value, value.new_empty(x.shape if rest[-1] else 0), value.new_empty(y.shape if rest[-1] else 0)


@torch.library.custom_op("alignmamba::mmd_backward", mutates_args=())
def _fused_backward(
    grad_x: Tensor, grad_y: Tensor, grad: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Gradients times the one that arrives: an operator, so that they are not differentiated again."""
    scaled_x, scaled_y = ((side * grad[:, None, None]).to(dtype) for side in (grad_x, grad_y))
    return scaled_x, scaled_y


@_fused_backward.register_fake
def _(grad_x: Tensor, grad_y: Tensor, grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return grad_x.new_empty(grad_x.shape, dtype=dtype), grad_y.new_empty(grad_y.shape, dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.dtype = inputs[0].dtype


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    grad_x, grad_y = _fused_backward(*ctx.saved_tensors, grad, ctx.dtype)
    return grad_x, grad_y, None, None, None, None, None


_fused.register_autograd(_differentiate, setup_context=_keep)
refuse_transforms("mmd", _fused, backward=_fused_backward)


def _single_precision_serves(x: Tensor, y: Tensor, scale: Tensor) -> bool:
    """Return whether no kernel entry is far wrong in single precision, where |x|^2 + |y|^2 - 2xy cancels."""
    if x.numel() == 0 or y.numel() == 0:
        return True
    largest = x.square().sum(2).amax(1) + y.square().sum(2).amax(1)
    error = float((largest * scale).max()) * 2.0**-22
    return error <= _LARGEST_EXPONENT_ERROR and float(scale.max()) < 1e30  # false for NaN


def _kernel_sum(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, scale: Tensor) -> Tensor:
    """Sum of the kernel over all valid pairs, (batch,), by tiles that are recomputed in the backward pass."""
    side = max(16, int((_TILE_ENTRIES // max(1, len(x))) ** 0.5))
    if x.shape[1] <= side and y.shape[1] <= side:
        return _tile_sum(x, y, x_mask, y_mask, scale)
    total = x.new_zeros(len(x))
    for x_tile, x_tile_mask in zip(x.split(side, 1), x_mask.split(side, 1), strict=True):
        for y_tile, y_tile_mask in zip(y.split(side, 1), y_mask.split(side, 1), strict=True):
            arguments = (x_tile, y_tile, x_tile_mask, y_tile_mask, scale)
            total = total + checkpoint(_tile_sum, *arguments, use_reentrant=False, preserve_rng_state=False)
    return total


def _tile_sum(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, scale: Tensor) -> Tensor:
    kernel = torch.exp(-scale[:, None, None] * _squared_distance(x, y))
    return kernel.masked_fill(~(x_mask.unsqueeze(2) & y_mask.unsqueeze(1)), 0).sum((1, 2))


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """(batch, x time, y time)."""
    squares = x.square().sum(2).unsqueeze(2) + y.square().sum(2).unsqueeze(1)
    return torch.baddbmm(squares, x, y.transpose(1, 2), alpha=-2).clamp(min=0)


def _median_distance(x: Tensor, x_mask: Tensor, y: Tensor, y_mask: Tensor) -> Tensor:
    """(batch,) float64: lower median of distances between distinct valid tokens, 1 where that is zero."""
    tokens, mask = torch.cat([x, y], 1).double(), torch.cat([x_mask, y_mask], 1)
    if tokens.shape[1] < 2:
        return tokens.new_ones(len(x))
    if not why_not("numba", x.device, tokens.dtype):
        median = _lower_median(tokens, mask).sqrt()
    else:
        squares = _squared_distance(tokens, tokens)
        first, second = torch.triu_indices(tokens.shape[1], tokens.shape[1], 1, device=x.device)
        distinct = mask[:, first] & mask[:, second]
        ordered = squares[:, first, second].masked_fill(~distinct, torch.inf).sort(1).values
        middle = (distinct.sum(1, keepdim=True) - 1).clamp(min=0) // 2
        median = ordered.gather(1, middle).squeeze(1).sqrt()
    # Equal tokens lie apart by the square root of rounding, 1e-8 of their distance from the centre: that is
    # zero too.
    rounding = 1e-6 * tokens.square().sum(2).amax(1).sqrt()
    return torch.where((median > rounding) & median.isfinite(), median, torch.ones_like(median))


@torch.library.custom_op("alignmamba::lower_median", mutates_args=())
def _lower_median(tokens: Tensor, mask: Tensor) -> Tensor:
    """Median of squared distances by selection, in a tenth of the time of sorting; few samples at once."""
    from alignmamba.ops.cpu.discrepancy import lower_median

    some_samples = max(1, _TILE_ENTRIES // max(1, tokens.shape[1] ** 2))
    medians = [
        lower_median(_squared_distance(part, part), part_mask)
        for part, part_mask in zip(tokens.split(some_samples), mask.split(some_samples), strict=True)
    ]
    return torch.cat(medians)


@_lower_median.register_fake
def _(values: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG001
    return values.new_empty(len(values))


refuse_transforms("mmd", _lower_median)


def _evenly_spaced(x: Tensor, mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Choose at most `most` valid tokens of each sample, by the sample's own length."""
    if x.shape[1] <= most:
        return x, mask
    lengths = mask.sum(1, keepdim=True)
    position = torch.arange(most, device=x.device)
    spaced = torch.where(lengths > most, position * lengths // most, position)
    valid_first = mask.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    index = valid_first.gather(1, spaced)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2])), position < lengths
