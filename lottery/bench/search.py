"""How fast a search trains, measured honestly: epochs, a ladder, images, replicates, and start-up."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lottery.bench import Report, benchmark, row, timed_rounds
from lottery.bench.loops import by_loader, commands, images, in_jax
from lottery.bench.loops.lenet import BATCH, Case, lenet
from lottery.bench.loops.products import matrix_rate, operations, products
from lottery.bench.loops.replicates import replicates
from lottery.bench.startup import seconds_to_first_step
from lottery.state.machine.bars import with_bar

Run = Callable[[], float]

LOOP = "epoch, images one at a time, 20 %"
DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
NETWORKS = ("conv-2", "conv-6", "resnet-20", "vgg-16")
COUNTS = (5, 20)


@dataclass(frozen=True)
class Group:
    """Things that are compared with one of them.

    Attributes:
        runs: by name, each returns its seconds.
        baseline: the name of the one that the others are compared with.
        seldom: whether they take so long that they are timed half as often.
    """

    runs: Mapping[str, Run]
    baseline: str
    seldom: bool = False


@benchmark("search", source="against loops that read images one at a time, and the best plain PyTorch loops")
def bench_search(data: str, repeats: int, device: str) -> Report:
    """Seconds of training: LeNet-300-100 epochs at seven densities, a whole ladder, images, replicates, start-up.

    Groups, each against its own baseline, all in one process and in turn. An epoch is SGD, batch 128, then an
    evaluation of the test images; it is compared with a loop that reads images one at a time and multiplies weights
    by masks, as OpenLTH does. The matrix products alone are the arithmetic limit of the dense formulation. The
    ladder is the whole command, 21 levels of two epochs each, against as many epochs of that loop, with nothing
    around them. Steps of convolutional networks are compared with plain loops without a mask, data and weights
    channels last. Replicates are compared with one training after the other, start-up with a process that imports
    PyTorch and ends.

    Args:
        data: a data set or a path; `synthetic` makes 60,000 + 10,000 random images of 28×28 pixels.
        repeats: timed runs of each; half as many, but two, of what takes long.
        device: as for `lottery prune`.
    """
    case = lenet(data, device)
    facts: dict[str, Any] = {
        "precision": "float32",
        "batch": BATCH,
        "examples": len(case.parts.train),
        "device": case.setup.device,
        "threads": torch.get_num_threads(),
    }
    groups = [_loops(case), _epochs(case, device), *_images(device), *_replicates(device), _startup(data)]
    seldom = max(min(2, repeats), repeats // 2)
    rows: list[dict[str, Any]] = []
    known: dict[str, list[float]] = {}
    for group in groups:
        seconds = timed_rounds(group.runs, seldom if group.seldom else repeats)
        known |= seconds
        baseline = known[group.baseline]
        rows += [row(name, "run", each, baseline, against=group.baseline, **facts) for name, each in seconds.items()]
    rows.append(_ladder(data, device, seldom, known[LOOP], facts))
    rate = matrix_rate(torch.device("cpu" if case.setup.device == "cpu" else "cuda"))
    _with_share(rows, case, rate)
    share = next(each["matrix_share"] for each in rows if each["what"] == "epoch, this trainer, 100 %")
    note = (
        f"{facts['examples']:,} images, batch {BATCH}, float32, {facts['device']}, {facts['threads']} threads; median "
        f"of {repeats} (of {seldom} for what takes long). The machine multiplies matrices at {rate / 1e9:.0f} GFLOP/s; "
        f"the dense epoch uses {share:.0%} of that."
    )
    return Report(rows, "run", note)


def _loops(case: Case) -> Group:
    runs = {
        LOOP: by_loader.one_image_at_a_time(case, 0.2),
        "epoch, DataLoader of tensors, 20 %": by_loader.by_tensors(case, 0.2),
    }
    return Group(runs, LOOP, seldom=True)


def _epochs(case: Case, device: str) -> Group:
    job, parts = case.thinned(0.2), case.parts
    runs: dict[str, Run] = {
        f"epoch, this trainer, {density:.0%}".replace("%", " %"): _ours(case, density) for density in DENSITIES
    }
    runs |= {
        "epoch, matrix products alone": functools.partial(products, case),
        "epoch, trainer optax, 20 %": in_jax.by_optax(case.source, parts, job, job.mask, device),
        "epoch, by hand in JAX, one program, 20 %": in_jax.in_one_program(parts, job, job.mask),
        "epoch, by hand in JAX, step by step, 20 %": in_jax.step_by_step(parts, job, job.mask),
    }
    return Group(runs, LOOP)


def _ours(case: Case, density: float) -> Run:
    return lambda: case.seconds(density)


def _images(device: str) -> list[Group]:
    groups: list[Group] = []
    for name in NETWORKS:
        ours, plain = images.by_this_trainer(name, device), f"step of {name}, plain loop"
        runs = {plain: images.by_plain_loop(name, device)}
        runs |= {f"step of {name}, this trainer, {d:.0%}".replace("%", " %"): ours(d) for d in (1.0, 0.1)}
        groups.append(Group(runs, plain, seldom=True))
    return groups


def _replicates(device: str) -> list[Group]:
    ours, plain, few = replicates(device), replicates(device, "pytorch"), COUNTS[0]
    by_pytorch = f"{few} replicates of the digits MLP, one after the other by PyTorch's operations"
    groups = [Group({by_pytorch: plain(few, False)}, by_pytorch, seldom=True)]
    for count in COUNTS:
        turn, together = (f"{count} replicates of the digits MLP, {how}" for how in ("one after the other", "one call"))
        runs = {turn: ours(count, False), together: ours(count, True)}
        groups.append(Group(runs, by_pytorch if count == few else turn, seldom=True))
    return groups


def _startup(data: str) -> Group:
    runs: dict[str, Run] = {
        "start-up, importing PyTorch alone": commands.import_torch,
        "start-up of lottery prune, digits": lambda: seconds_to_first_step("digits", "mlp"),
    }
    if data != "synthetic":
        runs[f"start-up of lottery prune, {data}"] = lambda: seconds_to_first_step(data, "lenet-300-100")
    return Group(runs, "start-up, importing PyTorch alone", seldom=True)


def _ladder(data: str, device: str, times: int, loop: list[float], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the whole command, against as many epochs of the loop, which was timed before."""
    levels, epochs = commands.LEVELS, commands.EPOCHS
    name = f"ladder, lottery prune, {levels} levels × {epochs} epochs"
    run = commands.ladder(data, device, facts["examples"])
    seconds = [run() for _ in with_bar(range(times), "ladders")]
    baseline = [levels * epochs * each for each in loop]
    against = f"{levels * epochs} epochs of images one at a time, nothing around them (computed)"
    return row(name, "run", seconds, baseline, against=against, **facts)


def _with_share(rows: list[dict[str, Any]], case: Case, rate: float) -> None:
    """Add to every epoch that computes densely which share of the machine's matrix rate it uses."""
    for each in rows:
        if each["what"] in ("epoch, this trainer, 100 %", "epoch, matrix products alone"):
            each["matrix_share"] = operations(case) / each["seconds_per_run"] / rate
