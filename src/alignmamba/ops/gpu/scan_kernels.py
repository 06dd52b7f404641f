"""Kernels of the selective scan (Gu & Dao, arXiv 2312.00752, section 3.3); `alignmamba.ops.gpu.scan` launches
them.

A thread owns a channel and holds that channel's states in registers, so nothing is summed across threads on
the way forward, and a group of threads reads neighbouring channels. The backward pass has two parts. The
first walks back through time with nothing but the gradient of the state, and notes what arrives at the end of
each tile of `TILE` tokens. The second takes the tiles in any order: from the state before a tile and the
gradient after it, it recomputes the states one at a time and forms every gradient.

`nothing` is 0, but the compiler must not know: addresses that it knew to be multiples of 16 bytes would make
it give each thread four neighbouring channels and spread a channel's states over four threads.
"""

import triton
import triton.language as tl

from alignmamba.ops.gpu.elementary import LN2, sigmoid, softplus

# Arguments that differ from batch to batch: a kernel is not to be compiled anew where one of them is 1 or a
# multiple of 16.
_GENERAL = ["batch", "time", "chunk_length", "chunks", "nothing"]


@triton.jit
def _place(channels, chunks, nothing, LANES: tl.constexpr):
    """The chunk of this program, over all rows; its row, and place there; its channels, and if they exist."""
    groups = tl.cdiv(channels, LANES)
    program = tl.program_id(0)
    part = (program // groups).to(tl.int64)
    channel = (program % groups) * LANES + tl.arange(0, LANES)
    return part, part // chunks, part % chunks, channel + nothing, channel < channels


@triton.jit
def _row(tile, rows, k: tl.constexpr):
    """Row `k` of a tile whose rows all lie in one thread; zeros drop out of a sum of integers."""
    bits = tile.to(tl.int32, bitcast=True)
    return tl.sum(tl.where(rows == k, bits, 0), axis=0).to(tl.float32, bitcast=True)


@triton.jit
def _sum_of_rows(tile, MATRIX: tl.constexpr):
    """Sum of each row of a tile whose columns lie in different threads."""
    if MATRIX:
        # As products with ones, because shuffles take far more instructions. The first 11 bits of a float32
        # are a TF32 number and so, but for the last bits, is what remains, so the sum is that of float32. All
        # 16 columns come out alike.
        high = (tile.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        ones = tl.full((tile.shape[1], 16), 1.0, tl.float32)
        total = tl.dot(high, ones, input_precision="tf32")
        total = tl.dot(tile - high, ones, total, input_precision="tf32")
        sums = tl.sum(total, axis=1) * 0.0625
    else:
        sums = tl.sum(tile, axis=1)
    return sums


@triton.jit(do_not_specialize=_GENERAL)
def forward_kernel(
    u, delta, A2, B, C, D, z, bias, start, y, finish, checkpoints, step_sums,
    time, channels, states, chunk_length, chunks,
    u_batch, u_time, delta_batch, delta_time, B_batch, B_time, C_batch, C_time, z_batch, z_time, nothing,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr,
    SOFTPLUS: tl.constexpr, OUTPUT: tl.constexpr, FINISH: tl.constexpr, CHECKPOINT: tl.constexpr,
    TILE: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One chunk of one row, token by token. Without OUTPUT only the last state and the sum of steps."""
    part, row, chunk, lane, inside = _place(channels, chunks, nothing, LANES)
    n = tl.arange(0, STATES)
    square = (n[:, None] < states) & inside[None, :]
    own = n[:, None] * channels + lane[None, :]  # within one (state, channel) matrix

    decay_rate = tl.load(A2 + own, mask=square, other=0.0)
    if HAS_START:
        h = tl.load(start + part * states * channels + own, mask=square, other=0.0)
    else:
        h = tl.zeros((STATES, LANES), tl.float32)
    if HAS_D:
        skip = tl.load(D + lane, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + lane, mask=inside, other=0.0).to(tl.float32)
    step_sum = tl.zeros((LANES,), tl.float32)

    first = (chunk * chunk_length).to(tl.int32)
    last = tl.minimum(first + chunk_length, time)
    u += row * u_batch + chunk * chunk_length * u_time + lane
    delta += row * delta_batch + chunk * chunk_length * delta_time + lane
    B += row * B_batch + chunk * chunk_length * B_time
    checkpoints_of_row = row * tl.cdiv(time, TILE)
    # Each token is loaded while the one before it is computed.
    next_u = tl.load(u, mask=inside, other=0.0)
    next_delta = tl.load(delta, mask=inside, other=0.0)
    next_b = tl.load(B + n, mask=n < states, other=0.0)
    if OUTPUT:
        y += (row * time + chunk * chunk_length) * channels + lane
        C += row * C_batch + chunk * chunk_length * C_time
        next_c = tl.load(C + n, mask=n < states, other=0.0)
        if HAS_Z:
            z += row * z_batch + chunk * chunk_length * z_time + lane
            next_z = tl.load(z, mask=inside, other=0.0)
    for t in range(first, last):
        drive = next_u.to(tl.float32)
        step = next_delta.to(tl.float32)
        b = next_b.to(tl.float32)
        onward = tl.where(t + 1 < last, 1, 0)  # the last token is loaded twice rather than one past it
        u += onward * u_time
        delta += onward * delta_time
        B += onward * B_time
        next_u = tl.load(u, mask=inside, other=0.0)
        next_delta = tl.load(delta, mask=inside, other=0.0)
        next_b = tl.load(B + n, mask=n < states, other=0.0)
        if CHECKPOINT:
            if t % TILE == 0:
                tl.store(
                    checkpoints + (checkpoints_of_row + t // TILE) * states * channels + own, h, mask=square
                )
        if HAS_BIAS:
            step += shift
        if SOFTPLUS:
            step = softplus(step)
        h = tl.exp2(step[None, :] * decay_rate) * h + (step * drive)[None, :] * b[:, None]
        if OUTPUT:
            c = next_c.to(tl.float32)
            C += onward * C_time
            next_c = tl.load(C + n, mask=n < states, other=0.0)
            out = tl.sum(h * c[:, None], axis=0)
            if HAS_D:
                out += skip * drive
            if HAS_Z:
                gate = next_z.to(tl.float32)
                z += onward * z_time
                next_z = tl.load(z, mask=inside, other=0.0)
                out *= gate * sigmoid(gate)
            tl.store(y, out.to(y.dtype.element_ty), mask=inside)
            y += channels
        else:
            step_sum += step
    if FINISH:
        tl.store(finish + part * states * channels + own, h, mask=square)
    if not OUTPUT:
        tl.store(step_sums + part * channels + lane, step_sum, mask=inside)


@triton.jit(do_not_specialize=_GENERAL)
def carry_kernel(
    edges, A2, step_sums, start, finish, channels, states, chunks, nothing,
    HAS_START: tl.constexpr, REVERSE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Replace what each chunk leaves, scanned from zero, by what it starts from, ROWS chunks at a time."""
    groups = tl.cdiv(channels, LANES)
    program = tl.program_id(0)
    row, state = (program // groups // states).to(tl.int64), program // groups % states
    channel = (program % groups) * LANES + tl.arange(0, LANES)
    lane = channel + nothing
    inside = channel < channels
    own = state * channels + lane
    decay_rate = tl.load(A2 + own, mask=inside, other=0.0)
    if HAS_START:
        h = tl.load(start + row * states * channels + own, mask=inside, other=0.0)
    else:
        h = tl.zeros((LANES,), tl.float32)
    rows = tl.arange(0, ROWS)[:, None]
    for first in range(0, chunks, ROWS):
        chunk = first + rows
        mask = (chunk < chunks) & inside[None, :]
        if REVERSE:
            part = row * chunks + (chunks - 1 - chunk)
        else:
            part = row * chunks + chunk
        places = edges + part * states * channels + own[None, :]
        left = tl.load(places, mask=mask, other=0.0)
        # Past the last chunk the sum of steps reads 0: the state passes unchanged.
        decay = tl.exp2(
            tl.load(step_sums + part * channels + lane[None, :], mask=mask, other=0.0) * decay_rate[None, :]
        )
        before = tl.zeros((ROWS, LANES), tl.float32)
        for k in tl.static_range(ROWS):
            before = tl.where(rows == k, h[None, :], before)
            h = _row(decay, rows, k) * h + _row(left, rows, k)
        tl.store(places, before, mask=mask)
    tl.store(finish + row * states * channels + own, h, mask=inside)


@triton.jit(do_not_specialize=_GENERAL)
def gradient_of_state_kernel(
    delta, A2, C, z, bias, grad_y, start, arriving, finish, tile_sums, step_sums,
    time, channels, states, chunk_length, chunks,
    delta_batch, delta_time, C_batch, C_time, z_batch, z_time, grad_batch, grad_time, nothing,
    HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_START: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNKED: tl.constexpr, TILE: tl.constexpr, STATES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One chunk from its end: r_t = exp(dt_t A) (C_t grad_y_t + r_{t+1}), noted after each tile."""
    part, row, chunk, lane, inside = _place(channels, chunks, nothing, LANES)
    n = tl.arange(0, STATES)
    square = (n[:, None] < states) & inside[None, :]
    own = n[:, None] * channels + lane[None, :]
    tiles = tl.cdiv(time, TILE)

    decay_rate = tl.load(A2 + own, mask=square, other=0.0)
    if HAS_START:
        r = tl.load(start + part * states * channels + own, mask=square, other=0.0)
    else:
        r = tl.zeros((STATES, LANES), tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + lane, mask=inside, other=0.0).to(tl.float32)
    step_sum = tl.zeros((LANES,), tl.float32)

    first = (chunk * chunk_length).to(tl.int32)
    last = tl.minimum(first + chunk_length, time)
    end = chunk * chunk_length + (last - first - 1)
    delta += row * delta_batch + end * delta_time + lane
    C += row * C_batch + end * C_time
    grad_y += row * grad_batch + end * grad_time + lane
    next_delta = tl.load(delta, mask=inside, other=0.0)
    next_c = tl.load(C + n, mask=n < states, other=0.0)
    next_grad = tl.load(grad_y, mask=inside, other=0.0)
    if HAS_Z:
        z += row * z_batch + end * z_time + lane
        next_z = tl.load(z, mask=inside, other=0.0)
    for back in range(0, last - first):
        t = last - 1 - back
        step = next_delta.to(tl.float32)
        c = next_c.to(tl.float32)
        grad = next_grad.to(tl.float32)
        onward = tl.where(t > first, 1, 0)
        delta -= onward * delta_time
        C -= onward * C_time
        grad_y -= onward * grad_time
        next_delta = tl.load(delta, mask=inside, other=0.0)
        next_c = tl.load(C + n, mask=n < states, other=0.0)
        next_grad = tl.load(grad_y, mask=inside, other=0.0)
        if HAS_Z:
            gate = next_z.to(tl.float32)
            z -= onward * z_time
            next_z = tl.load(z, mask=inside, other=0.0)
            grad *= gate * sigmoid(gate)
        if ((t + 1) % TILE == 0) | (t == time - 1):
            place = row * tiles + t // TILE
            tl.store(arriving + place * states * channels + own, r, mask=square)
            if CHUNKED:
                tl.store(tile_sums + place * channels + lane, step_sum, mask=inside)
        if HAS_BIAS:
            step += shift
        if SOFTPLUS:
            step = softplus(step)
        r = tl.exp2(step[None, :] * decay_rate) * (grad[None, :] * c[:, None] + r)
        if CHUNKED:
            step_sum += step
    tl.store(finish + part * states * channels + own, r, mask=square)
    if CHUNKED:
        tl.store(step_sums + part * channels + lane, step_sum, mask=inside)


@triton.jit(do_not_specialize=_GENERAL)
def gradients_kernel(
    u, delta, A2, B, C, D, z, bias, checkpoints, arriving, edges, tile_sums, grad_y,
    grad_u, grad_delta, grad_z, grad_B, grad_C, grad_D, grad_bias,
    batch, time, channels, states, chunk_length, chunks,
    u_batch, u_time, delta_batch, delta_time, B_batch, B_time, C_batch, C_time, z_batch, z_time,
    grad_batch, grad_time, nothing,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    CHUNKED: tl.constexpr, MATRIX: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Every gradient of one tile, state after state; `arriving` ends as the parts of grad_A."""
    groups = tl.cdiv(channels, LANES)
    program = tl.program_id(0)
    group = program % groups
    place = (program // groups).to(tl.int64)  # which tile of which row
    tiles = tl.cdiv(time, TILE)
    row, tile = place // tiles, place % tiles
    channel = group * LANES + tl.arange(0, LANES)
    lane = channel + nothing
    inside = channel < channels
    rows = tl.arange(0, TILE)[:, None]
    t = tile * TILE + tl.arange(0, TILE)
    within = t < time
    mask = within[:, None] & inside[None, :]
    part = row * chunks + tile * TILE // chunk_length

    u_places = u + row * u_batch + t[:, None] * u_time + lane[None, :]
    delta_places = delta + row * delta_batch + t[:, None] * delta_time + lane[None, :]
    if HAS_Z:
        z_places = z + row * z_batch + t[:, None] * z_time + lane[None, :]
    grad_places = grad_y + row * grad_batch + t[:, None] * grad_time + lane[None, :]
    # Past the end the last token's maps are read: what they meet there is zero.
    token = tl.minimum(tl.arange(0, TILE), (time - 1 - tile * TILE).to(tl.int32))
    B += row * B_batch + tile * TILE * B_time
    C += row * C_batch + tile * TILE * C_time
    # grad_B and grad_C are (group, batch, state, time)
    maps = (group * batch + row) * states * time + tile * TILE

    step = tl.load(delta_places, mask=mask, other=0.0).to(tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + lane, mask=inside, other=0.0).to(tl.float32)
        step += shift[None, :]
    if SOFTPLUS:
        step = softplus(step)
    step = tl.where(mask, step, 0.0)
    drive = step * tl.load(u_places, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_places, mask=mask, other=0.0).to(tl.float32)
    if HAS_Z:
        gate = tl.load(z_places, mask=mask, other=0.0).to(tl.float32)
        grad *= gate * sigmoid(gate)
    if CHUNKED:
        step_sum = tl.load(tile_sums + place * channels + lane, mask=inside, other=0.0)

    through_drive = tl.zeros((TILE, LANES), tl.float32)
    through_exponent = tl.zeros((TILE, LANES), tl.float32)
    out = tl.zeros((TILE, LANES), tl.float32)
    for n in range(0, states):
        own = place * states * channels + n * channels + lane
        decay_rate = tl.load(A2 + n * channels + lane, mask=inside, other=0.0)
        h = tl.load(checkpoints + own, mask=inside, other=0.0)
        r = tl.load(arriving + own, mask=inside, other=0.0)
        if CHUNKED:
            # What comes from later chunks has decayed since the end of this one.
            edge = tl.load(edges + part * states * channels + n * channels + lane, mask=inside, other=0.0)
            r += tl.exp2(step_sum * decay_rate) * edge
        b = tl.load(B + n + token * B_time).to(tl.float32)
        c = tl.load(C + n + token * C_time).to(tl.float32)
        decay = tl.exp2(step * decay_rate[None, :])
        pushed = drive * b[:, None]
        asked = grad * c[:, None]

        decayed = tl.zeros((TILE, LANES), tl.float32)
        state = tl.zeros((TILE, LANES), tl.float32)
        for k in tl.static_range(TILE):
            kept = _row(decay, rows, k) * h
            h = kept + _row(pushed, rows, k)
            decayed = tl.where(rows == k, kept[None, :], decayed)
            state = tl.where(rows == k, h[None, :], state)
        grad_state = tl.zeros((TILE, LANES), tl.float32)
        for k in tl.static_range(TILE):
            g = _row(asked, rows, TILE - 1 - k) + r
            r = _row(decay, rows, TILE - 1 - k) * g
            grad_state = tl.where(rows == TILE - 1 - k, g[None, :], grad_state)

        grad_exponent = grad_state * decayed
        through_drive += grad_state * b[:, None]
        through_exponent += grad_exponent * decay_rate[None, :]
        tl.store(arriving + own, tl.sum(grad_exponent * step, axis=0), mask=inside)
        tl.store(
            grad_B + maps + n * time + tl.arange(0, TILE),
            _sum_of_rows(grad_state * drive, MATRIX),
            mask=within,
        )
        tl.store(
            grad_C + maps + n * time + tl.arange(0, TILE), _sum_of_rows(grad * state, MATRIX), mask=within
        )
        if HAS_Z:
            out += state * c[:, None]

    # Tokens are loaded again, because no register is left for them through the loop. Nor is there one for
    # their addresses, but a compiler that knew them to be the same as before would keep them all the same.
    t += nothing
    lane += nothing
    u_places = u + row * u_batch + t[:, None] * u_time + lane[None, :]
    delta_places = delta + row * delta_batch + t[:, None] * delta_time + lane[None, :]
    if HAS_Z:
        z_places = z + row * z_batch + t[:, None] * z_time + lane[None, :]
    grad_places = grad_y + row * grad_batch + t[:, None] * grad_time + lane[None, :]
    x = tl.load(u_places, mask=mask, other=0.0).to(tl.float32)
    gradient = through_drive * step
    if HAS_D:
        skip = tl.load(D + lane, mask=inside, other=0.0).to(tl.float32)
        gradient += grad * skip[None, :]
        out += x * skip[None, :]
        tl.store(grad_D + place * channels + lane, tl.sum(grad * x, axis=0), mask=inside)
    packed = (row * time + t[:, None]) * channels + lane[None, :]
    tl.store(grad_u + packed, gradient.to(grad_u.dtype.element_ty), mask=mask)
    # The decay rate carries log2(e), which d exp(dt A) / d dt does not.
    gradient = through_drive * x + through_exponent * LN2
    if SOFTPLUS:
        before = tl.load(delta_places, mask=mask, other=0.0).to(tl.float32)
        if HAS_BIAS:
            before += shift[None, :]
        gradient *= sigmoid(before)
    tl.store(grad_delta + packed, gradient.to(grad_delta.dtype.element_ty), mask=mask)
    if HAS_BIAS:
        tl.store(
            grad_bias + place * channels + lane, tl.sum(tl.where(mask, gradient, 0.0), axis=0), mask=inside
        )
    if HAS_Z:
        gate = tl.load(z_places, mask=mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_places, mask=mask, other=0.0).to(tl.float32)
        slope = sigmoid(gate)
        gradient = grad * out * slope * (1.0 + gate * (1.0 - slope))
        tl.store(grad_z + packed, gradient.to(grad_z.dtype.element_ty), mask=mask)
