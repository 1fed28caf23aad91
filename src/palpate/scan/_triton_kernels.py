# ruff: noqa: N803 - the symbols of the paper
"""Kernels of the Triton scan; imported only where triton is installed (see `scan/triton.py`).

Symbols as in `palpate.scan.base`. One program walks along the sequence for LANES channels of one
group of one sample, with their states (STATES, LANES) in registers: states along the registers of
a thread, channels along its threads, so that sums over states need no exchange between threads.
STATES and LANES are powers of two; what lies past `states` and `width` is masked, with `tl.where`
wherever a zero factor could still let a NaN into a sum.

Tensors are contiguous: u, delta, y (batch, groups, width, length), A (state, groups, width), B, C
(batch, groups, state, length), D (groups, width) or None. Channels are last in A because the
compiler lays a tile out as it is first loaded. The length is cut into spans; `starts` (programs,
spans, STATES, LANES) keeps the states before each of them, and the backward pass recomputes the
rest, one span at a time, into `scratch` (programs, span, STATES, LANES).
"""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _place(
    groups: tl.tensor,
    width: tl.tensor,
    states: tl.tensor,
    STATES: tl.constexpr,
    LANES: tl.constexpr,
) -> Any:
    """Number of program, of sample and group, of its sequences, its channels, its states; masks."""
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(width, LANES)
    pair = program // blocks
    lane, n = program % blocks * LANES + tl.arange(0, LANES), tl.arange(0, STATES)
    channel = pair % groups * width + lane
    return program, pair, pair * width + lane, channel, n, lane < width, n < states


@triton.jit
def _inputs(
    u: tl.tensor,
    delta: tl.tensor,
    B: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    real: tl.tensor,
    alive: tl.tensor,
) -> Any:
    """One step of u and delta (LANES,) and of B (STATES,)."""
    x = tl.load(u + row, mask=real, other=0.0)
    d = tl.load(delta + row, mask=real, other=0.0)
    return x, d, tl.load(B + column, mask=alive, other=0.0)


@triton.jit
def _advance(state: tl.tensor, x: tl.tensor, d: tl.tensor, b: tl.tensor, matrix: tl.tensor) -> Any:
    """The next state, and the decay on the way there."""
    decay = tl.exp(d[None, :] * matrix)
    return decay * state + (d * x)[None, :] * b[:, None], decay


@triton.jit
def _retreat(
    later: tl.tensor,
    previous: tl.tensor,
    g: tl.tensor,
    x: tl.tensor,
    d: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    matrix: tl.tensor,
    real: tl.tensor,
    alive: tl.tensor,
) -> Any:
    """Gradients of one step: `previous` is the state before it, `later` comes from after it."""
    state, decay = _advance(previous, x, d, b, matrix)
    grad_state = later + g[None, :] * c[:, None]
    to_c = tl.sum(tl.where(real[None, :], g[None, :] * state, 0.0), 1)
    to_b = tl.sum(tl.where(real[None, :], grad_state * (d * x)[None, :], 0.0), 1)
    to_input = tl.sum(tl.where(alive[:, None], grad_state * b[:, None], 0.0), 0)
    later = decay * grad_state
    through = later * previous
    to_step = tl.sum(tl.where(alive[:, None], through * matrix, 0.0), 0)
    return later, through * d[None, :], to_b, to_c, to_input * d, to_input * x + to_step


@triton.jit
def scan_forward(
    u: tl.tensor,
    delta: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    D: "tl.tensor | None",
    y: tl.tensor,
    starts: "tl.tensor | None",
    groups: tl.tensor,
    width: tl.tensor,
    states: tl.tensor,
    length: tl.tensor,
    span: tl.tensor,
    STATES: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """Write y and, unless `starts` is None, the states before each span."""
    program, pair, sequence, channel, n, real, alive = _place(groups, width, states, STATES, LANES)
    tile = n[:, None] * LANES + tl.arange(0, LANES)[None, :]
    both = alive[:, None] & real[None, :]
    matrix = tl.load(A + n[:, None] * (groups * width) + channel[None, :], mask=both, other=0.0)
    skip = tl.zeros((LANES,), tl.float32)
    if D is not None:
        skip = tl.load(D + channel, mask=real, other=0.0)
    rows, columns = sequence * length, (pair * states + n) * length
    spans = tl.cdiv(length, span)
    state = tl.zeros((STATES, LANES), tl.float32)
    for index in range(spans):
        if starts is not None:
            tl.store(starts + (program * spans + index) * STATES * LANES + tile, state)
        first = index * span
        for t in range(first, tl.minimum(first + span, length)):
            x, d, b = _inputs(u, delta, B, rows + t, columns + t, real, alive)
            c = tl.load(C + columns + t, mask=alive, other=0.0)
            state, _ = _advance(state, x, d, b, matrix)
            out = tl.sum(tl.where(alive[:, None], state * c[:, None], 0.0), 0)
            if D is not None:
                out += skip * x
            tl.store(y + rows + t, out, mask=real)


@triton.jit
def scan_backward(
    grad_y: tl.tensor,
    u: tl.tensor,
    delta: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    D: "tl.tensor | None",
    starts: tl.tensor,
    scratch: tl.tensor,
    grad_u: tl.tensor,
    grad_delta: tl.tensor,
    part_A: tl.tensor,
    part_B: tl.tensor,
    part_C: tl.tensor,
    part_D: tl.tensor,
    groups: tl.tensor,
    width: tl.tensor,
    states: tl.tensor,
    length: tl.tensor,
    span: tl.tensor,
    STATES: tl.constexpr,
    LANES: tl.constexpr,
) -> None:
    """Write grad_u, grad_delta, and parts that the caller sums, so that no order is left to chance.

    A and D get one part per sample, (batch, state, groups, width) and (batch, groups, width);
    B and C one per program, (batch, groups, blocks, state, length).
    """
    program, pair, sequence, channel, n, real, alive = _place(groups, width, states, STATES, LANES)
    tile = n[:, None] * LANES + tl.arange(0, LANES)[None, :]
    both = alive[:, None] & real[None, :]
    matrix = tl.load(A + n[:, None] * (groups * width) + channel[None, :], mask=both, other=0.0)
    rows, columns, parts = sequence * length, pair * states + n, program * states + n
    columns, parts = columns * length, parts * length
    spans = tl.cdiv(length, span)
    before = scratch + program * span * STATES * LANES + tile
    later, sum_a = tl.zeros((STATES, LANES), tl.float32), tl.zeros((STATES, LANES), tl.float32)
    skip, sum_d = tl.zeros((LANES,), tl.float32), tl.zeros((LANES,), tl.float32)
    if D is not None:
        skip = tl.load(D + channel, mask=real, other=0.0)
    for ago in range(spans):
        index = spans - 1 - ago
        first = index * span
        steps = tl.minimum(span, length - first)
        state = tl.load(starts + (program * spans + index) * STATES * LANES + tile)
        for i in range(steps):
            tl.store(before + i * STATES * LANES, state)
            x, d, b = _inputs(u, delta, B, rows + first + i, columns + first + i, real, alive)
            state, _ = _advance(state, x, d, b, matrix)
        tl.debug_barrier()  # a thread may read below what another one wrote above
        for i in range(steps):
            t = first + steps - 1 - i
            x, d, b = _inputs(u, delta, B, rows + t, columns + t, real, alive)
            c = tl.load(C + columns + t, mask=alive, other=0.0)
            g = tl.load(grad_y + rows + t, mask=real, other=0.0)
            previous = tl.load(before + (steps - 1 - i) * STATES * LANES)
            later, to_a, to_b, to_c, to_u, to_delta = _retreat(
                later, previous, g, x, d, b, c, matrix, real, alive
            )
            sum_a += to_a
            sum_d += g * x
            if D is not None:
                to_u += g * skip
            tl.store(grad_u + rows + t, to_u, mask=real)
            tl.store(grad_delta + rows + t, to_delta, mask=real)
            tl.store(part_B + parts + t, to_b, mask=alive)
            tl.store(part_C + parts + t, to_c, mask=alive)
        tl.debug_barrier()  # the next span overwrites what was read above
    sample = pair // groups * states + n
    tl.store(part_A + sample[:, None] * (groups * width) + channel[None, :], sum_a, mask=both)
    tl.store(part_D + sequence, sum_d, mask=real)
