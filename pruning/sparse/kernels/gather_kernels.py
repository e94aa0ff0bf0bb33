"""The kernels of the gather: weighted sums of runs, and gradients of the weights.

See `gather_plan` for what a run is. Written for triton 3.6 to 3.9. Addresses are 64 bits wide throughout.
"""

# pyright: reportInvalidTypeForm=false
# (triton may be missing, and then there is no type to annotate with)
from __future__ import annotations

from pruning.sparse.kernels.toolchain import jit, tl


@jit
def gather_sums(
    inputs,
    values,
    bases,
    starts,
    rows,
    longest,
    outputs,
    groups,
    tiles,
    all_rows,
    count,
    length,
    step,
    units,
    ROWS: tl.constexpr,
    WEIGHTS: tl.constexpr,
    BATCH: tl.constexpr,
    PARTS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """One program: `ROWS` output rows × `BATCH` numbers of one run, and one of `PARTS` parts of the rows' weights.

    A place holds `units · ALIGN` examples. Programs that run side by side read the same run, which the cache holds.
    """
    program = tl.program_id(0)
    group = program % groups
    part = program // groups % PARTS
    tile = program // groups // PARTS % tiles
    run = (program // groups // PARTS // tiles).to(tl.int64)
    width = units * ALIGN
    number = tile * BATCH + tl.arange(0, BATCH)
    there = number < length * width
    row = tl.load(rows + group * ROWS + tl.arange(0, ROWS))
    steps = tl.cdiv(tl.cdiv(tl.load(longest + group), WEIGHTS), PARTS) * WEIGHTS
    first = tl.load(starts + row, mask=row >= 0, other=0) + part * steps
    last = tl.minimum(tl.load(starts + row + 1, mask=row >= 0, other=0), first + steps)
    x = inputs + run * step * width
    total = tl.zeros((ROWS, WEIGHTS, BATCH), dtype=tl.float32)
    for at in range(0, steps, WEIGHTS):
        weight = first[:, None] + at + tl.arange(0, WEIGHTS)[None, :]
        real = weight < last[:, None]
        base = tl.load(bases + weight, mask=real, other=0).to(tl.int64)
        value = tl.load(values + weight, mask=real, other=0.0).to(tl.float32)
        gathered = tl.load(
            x + base[:, :, None] * width + number[None, None, :],
            mask=real[:, :, None] & there[None, None, :],
            other=0.0,
        )
        total += value[:, :, None] * gathered.to(tl.float32)
    where = ((part.to(tl.int64) * all_rows + row) * count + run) * length * width
    tl.store(
        outputs + where[:, None] + number[None, :],
        tl.sum(total, axis=1).to(outputs.dtype.element_ty),
        mask=(row[:, None] >= 0) & there[None, :],
    )


@jit
def gather_gradients(
    inputs,
    gradients,
    bases,
    starts,
    rows,
    firsts,
    outputs,
    segments,
    tiles,
    kept,
    count,
    length,
    step,
    gradients_row,
    gradients_step,
    units,
    WEIGHTS: tl.constexpr,
    BATCH: tl.constexpr,
    PARTS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """One program: the gradients of at most `WEIGHTS` values of one row, over one of `PARTS` parts of the numbers.

    The gradients of the row's outputs are loaded once for all its weights.
    """
    program = tl.program_id(0)
    segment = program % segments
    part = program // segments
    width = units * ALIGN
    row = tl.load(rows + segment).to(tl.int64)
    weight = tl.load(firsts + segment) + tl.arange(0, WEIGHTS)
    real = weight < tl.load(starts + row + 1)
    base = tl.load(bases + weight, mask=real, other=0).to(tl.int64)
    share = tl.cdiv(count * tiles, PARTS)
    total = tl.zeros((WEIGHTS, BATCH), dtype=tl.float32)
    for turn in range(0, share):
        item = part * share + turn
        run = (item // tiles).to(tl.int64)
        number = item % tiles * BATCH + tl.arange(0, BATCH)
        there = number < tl.where(run < count, length * width, 0)
        gradient = tl.load(
            gradients + (row * gradients_row + run * gradients_step) * width + number, mask=there, other=0.0
        )
        gathered = tl.load(
            inputs + (base[:, None] + run * step) * width + number[None, :],
            mask=real[:, None] & there[None, :],
            other=0.0,
        )
        total += gathered.to(tl.float32) * gradient.to(tl.float32)[None, :]
    tl.store(outputs + part.to(tl.int64) * kept + weight, tl.sum(total, axis=1), mask=real)
