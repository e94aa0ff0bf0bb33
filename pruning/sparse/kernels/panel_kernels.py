"""The kernels of panels: products with a panel's rows, and gradients of the values in its slots.

Written for triton 3.6 to 3.9. Addresses are 64 bits wide throughout.
"""

# pyright: reportInvalidTypeForm=false
# (triton may be missing, and then there is no type to annotate with)
from __future__ import annotations

from pruning.sparse.kernels.toolchain import jit, tl


@jit
def panel_products(
    inputs,
    values,
    rows,
    starts,
    columns,
    positions,
    outputs,
    panels,
    tiles,
    output_rows,
    summed,
    units,
    inputs_step,
    values_step,
    HEIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
    BATCH: tl.constexpr,
    ALIGN: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: one panel × `BATCH` examples, summed over `summed` members.

    A row of inputs is `units · ALIGN` wide. A step of 0 shares inputs or values between members. Programs that run
    side by side read the same examples, which the cache then holds.
    """
    program = tl.program_id(0)
    panel = program % panels
    example = program // panels % tiles * BATCH + tl.arange(0, BATCH)
    member = program // panels // tiles
    width = units * ALIGN
    there = example < width
    slot = tl.arange(0, CHUNK)
    line = tl.arange(0, HEIGHT)
    first = tl.load(starts + panel)
    last = tl.load(starts + panel + 1)
    total = tl.zeros((HEIGHT, BATCH), dtype=tl.float32)
    for m in range(0, summed):
        own = member.to(tl.int64) * summed + m
        x = inputs + own * inputs_step
        v = values + own * values_step
        for at in range(first, last, CHUNK):
            column = tl.load(columns + at + slot).to(tl.int64)
            gathered = tl.load(
                x + column[:, None] * width + example[None, :],
                mask=(column[:, None] >= 0) & there[None, :],
                other=0.0,
            )
            position = tl.load(positions + at * HEIGHT + line[:, None] * CHUNK + slot[None, :])
            weight = tl.load(v + position, mask=position >= 0, other=0.0)
            total = tl.dot(weight.to(OPERAND), gathered.to(OPERAND), total, input_precision=PRECISION)
    row = tl.load(rows + panel * HEIGHT + line).to(tl.int64)
    where = (member.to(tl.int64) * output_rows + row) * width
    tl.store(
        outputs + where[:, None] + example[None, :],
        total.to(outputs.dtype.element_ty),
        mask=(row[:, None] >= 0) & there[None, :],
    )


@jit
def panel_gradients(
    inputs,
    gradients,
    rows,
    columns,
    owners,
    positions,
    outputs,
    chunks,
    output_rows,
    summed,
    units,
    inputs_step,
    kept,
    HEIGHT: tl.constexpr,
    CHUNK: tl.constexpr,
    BATCH: tl.constexpr,
    ALIGN: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: the values in one chunk of a panel, summed over `summed` members and all examples."""
    program = tl.program_id(0)
    chunk = (program % chunks).to(tl.int64)
    member = (program // chunks).to(tl.int64)
    width = units * ALIGN
    slot = tl.arange(0, CHUNK)
    line = tl.arange(0, HEIGHT)
    column = tl.load(columns + chunk * CHUNK + slot).to(tl.int64)
    row = tl.load(rows + tl.load(owners + chunk) * HEIGHT + line).to(tl.int64)
    total = tl.zeros((HEIGHT, CHUNK), dtype=tl.float32)
    for m in range(0, summed):
        own = member * summed + m
        x = inputs + own * inputs_step
        g = gradients + own * output_rows * width
        for at in range(0, width, BATCH):
            example = at + tl.arange(0, BATCH)
            there = example < width
            gathered = tl.load(
                x + column[:, None] * width + example[None, :],
                mask=(column[:, None] >= 0) & there[None, :],
                other=0.0,
            )
            gradient = tl.load(
                g + row[:, None] * width + example[None, :],
                mask=(row[:, None] >= 0) & there[None, :],
                other=0.0,
            )
            total = tl.dot(gradient.to(OPERAND), tl.trans(gathered.to(OPERAND)), total, input_precision=PRECISION)
    position = tl.load(positions + chunk * (HEIGHT * CHUNK) + line[:, None] * CHUNK + slot[None, :])
    tl.store(outputs + member * kept + position, total, mask=position >= 0)
