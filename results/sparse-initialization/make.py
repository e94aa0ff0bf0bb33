"""Makes the tables and figures of this folder: `python make.py signal` (training, pruned-before, learning-rate).

`python make.py draw signal` draws a figure again. Every number is of five seeds; intervals are Student's t, 95 %.
Densities, schemes and seeds were fixed before the first run; steps were cut once, to fit a busy machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from lottery.results.figure import draw_lines, save_figure
from lottery.results.reporting import Line, cells, line, table
from lottery.runs.given import Given
from lottery.search.frame.frame import Frame, frame_of
from lottery.studies.starting.starting import Started, start
from pruning.jobs import Budget, Job
from pruning.watch import Silent

HERE = Path(__file__).parent
SEEDS = range(5)
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
FURTHER = (*DENSITIES, 0.01)
BEFORE = (0.1, 0.05, 0.02)

# By network: its dense start, the gain that keeps its signal, and how it is trained.
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "deep-mlp": {"dense": "glorot-normal", "gain": 1.0},
    "plain-cnn": {"dense": "kaiming-normal", "gain": 2**0.5},
}
TRAINED: Mapping[str, Any] = {"optimizer": "adam", "lr": 1e-3, "batch_size": 64}
STEPS: Mapping[str, int] = {"deep-mlp": 300, "plain-cnn": 200}


def schemes(network: str) -> dict[str, dict[str, Any]]:
    """Return the six ways to start, by the words of the tables."""
    gain = {"gain": NETWORKS[network]["gain"]}
    return {
        "dense draw, masked": {"init": NETWORKS[network]["dense"]},
        "layer-scaled": {"init": "layer-scaled", "init_params": gain},
        "unit-scaled": {"init": "unit-scaled", "init_params": gain},
        "orthogonal, masked": {"init": "orthogonal", "init_params": gain},
        "unit-scaled, repaired": {
            "init": "unit-scaled",
            "init_params": gain,
            "repair": "isometry",
            "repair_params": gain,
        },
        "exact-orthogonal": {"init": "exact-orthogonal", "init_params": gain},
    }


def started(network: str, scheme: Mapping[str, Any], density: float, seed: int, **more: Any) -> Started:
    """Return a start under a random ERK mask, the output layer dense."""
    return start(network, "digits", density=density, scope="erk", skip=["head.weight"], seed=seed, **scheme, **more)


def signal() -> None:
    """How far signals come at densities from 50 to 1 %."""
    found: dict[str, Any] = {}
    for network in NETWORKS:
        for name, scheme in schemes(network).items():
            rows = [[_passage(network, scheme, density, seed) for seed in SEEDS] for density in FURTHER]
            found.setdefault(network, {})[name] = rows
            print(network, name, cells(line(rows), ".1f"), flush=True)
    _written("signal", found)


def draw_signal(found: Mapping[str, Any]) -> Figure:
    """Draw what `signal` wrote."""
    lines = {n: {name: line(rows) for name, rows in found[n].items()} for n in NETWORKS}
    titles = {network: f"{network}, n = 5" for network in NETWORKS}
    return _beside(lines, FURTHER, titles, "log10 of E[z²], last hidden layer over first")


def _passage(network: str, scheme: Mapping[str, Any], density: float, seed: int) -> float:
    """Return log10 of E[z²] at the last hidden layer over that at the first; -40 for nothing at all."""
    report = started(network, scheme, density, seed).report
    passed = [layer.signal for layer in report.layers if layer.signal is not None]
    ratio = passed[-2].forward / passed[0].forward if passed[0].forward else 0.0
    return float(np.log10(max(ratio, 1e-40)))


def training() -> None:
    """Test accuracy of deep networks that are trained sparse from scratch, from six starts."""
    found: dict[str, Any] = {}
    for network in NETWORKS:
        steps = {"steps": STEPS[network], "eval_every": STEPS[network]}
        frame = frame_of(Given(network, "digits"), {"levels": 0, "skip": ["head.weight"], **TRAINED, **steps}, Silent())
        for name, scheme in schemes(network).items():
            rows = [_accuracies(frame, network, scheme, density) for density in DENSITIES]
            found.setdefault(network, {})[name] = rows
            print(network, name, cells(line(rows), ".1f", 100), flush=True)
    _written("training", found)


def draw_training(found: Mapping[str, Any]) -> Figure:
    """Draw what `training` wrote, and write its tables."""
    lines = {n: {name: _percent(line(rows)) for name, rows in found[n].items()} for n in NETWORKS}
    for network in NETWORKS:
        _table(f"training-{network}", DENSITIES, lines[network])
    titles = {network: f"{network}, digits, {STEPS[network]} steps, n = 5" for network in NETWORKS}
    return _beside(lines, DENSITIES, titles, "test accuracy (%)")


def _accuracies(frame: Frame, network: str, scheme: Mapping[str, Any], density: float) -> list[float]:
    starts = [started(network, scheme, density, seed).ticket for seed in SEEDS]
    return _trained(frame, [(ticket.params, ticket.mask, ticket.info["seed"]) for ticket in starts])


def _trained(frame: Frame, starts: Sequence[tuple[Any, Any, int]]) -> list[float]:
    steps = frame.setup.total_steps
    jobs = [Job(params, mask, seed, Budget(0, steps)) for params, mask, seed in starts]
    results = frame.setup.trainer.train(jobs, frozenset())
    # one that diverged answers by chance
    return [0.1 if each.diverged else float(each.history[-1].test or 0.0) for each in results]


def pruned_before() -> None:
    """LeNet-300-100 pruned before training by SNIP, GraSP and SynFlow, with and without repair."""
    settings = {"optimizer": "adam", "lr": 1.2e-3, "batch_size": 128, "steps": 800, "eval_every": 800}
    frame = frame_of(Given("lenet-300-100", "fashion-mnist"), {"levels": 0, **settings}, Silent())
    found: dict[str, Any] = {}
    for criterion in ("snip", "grasp", "synflow"):
        for repair in (None, "isometry"):
            name = f"{criterion}, repaired" if repair else criterion
            rows: list[list[float]] = []
            for density in BEFORE:
                asked: dict[str, Any] = {"criterion": criterion, "density": density, "repair": repair}
                starts = [start("lenet-300-100", "fashion-mnist", seed=seed, **asked) for seed in SEEDS]
                rows.append(_trained(frame, [(s.ticket.params, s.ticket.mask, s.ticket.info["seed"]) for s in starts]))
            found[name] = rows
            print(name, cells(line(rows), ".1f", 100), flush=True)
    _written("pruned-before", found)


def draw_pruned_before(found: Mapping[str, Any]) -> Figure:
    """Draw what `pruned_before` wrote, and write its table."""
    lines = {name: _percent(line(rows)) for name, rows in found.items()}
    _table("pruned-before", BEFORE, lines)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    draw_lines(axes, 100 * np.array(BEFORE), lines)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("LeNet-300-100, Fashion-MNIST, 800 steps, n = 5", fontsize=9)
    return figure


WIDTH = 256
RATES = tuple(2.0**-power for power in range(13, 3, -1))


class Wide(nn.Module):
    """Four hidden ReLU layers of 256 units; the three between them are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1, 8, 8] to [N, 10]."""
        x = self.first(x.flatten(1)).relu()
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)


def learning_rate() -> None:
    """The best learning rate of Adam against density: the standard parametrization, and SμPar."""
    densities = (1.0, 0.25, 0.0625, 0.03125)
    base = {"base_width": WIDTH, "width": WIDTH}
    ways: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "standard": ({"init": "kaiming-normal"}, {}),
        "SμPar": ({"init": "smupar", "init_params": base}, {"lr_rule": "smupar", "lr_rule_params": base}),
    }
    prunable = ["hidden.*.weight"]
    found: dict[str, Any] = {}
    for name, (scheme, rule) in ways.items():
        for density in densities:
            losses: list[list[float]] = []
            starts = [
                start(lambda seed: Wide(), "digits", density=density, prunable=prunable, seed=seed, **scheme).ticket
                for seed in SEEDS
            ]
            for rate in RATES:
                settings = {"levels": 0, "prunable": prunable, "optimizer": "adam", "lr": rate, **rule}
                settings |= {"steps": 200, "eval_every": 50, "batch_size": 64}
                frame = frame_of(Given(lambda seed: Wide(), "digits"), settings, Silent())
                jobs = [Job(each.params, each.mask, each.info["seed"], Budget(0, 200)) for each in starts]
                results = list(frame.setup.trainer.train(jobs, frozenset()))
                losses.append([np.inf if r.diverged else float(r.history[-1].train_loss or np.inf) for r in results])
            best = [RATES[int(np.argmin([row[seed] for row in losses]))] for seed in range(len(SEEDS))]
            found.setdefault(name, {})[str(density)] = {"losses": losses, "best": best}
            print(name, density, "best", [f"2^{np.log2(rate):.0f}" for rate in best], flush=True)
    _written("learning-rate", found)


def draw_learning_rate(found: Mapping[str, Any]) -> Figure:
    """Draw what `learning_rate` wrote."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained", dpi=110)
    for axes, (name, by_density) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
        for density, each in by_density.items():
            label = f"density {100 * float(density):g} %"
            axes.loglog(RATES, np.median(each["losses"], axis=1), "o-", ms=3.5, label=label)
        axes.set_title(f"{name}: training loss after 200 steps, median of 5", fontsize=9)
        axes.set_xlabel("learning rate of Adam")
        axes.legend(fontsize=8)
    return figure


def _percent(values: Line) -> Line:
    return Line(100 * values.mean, 100 * values.low, 100 * values.high)


def _table(name: str, densities: Sequence[float], lines: Mapping[str, Line]) -> None:
    rows = [[label, *cells(values, ".1f")] for label, values in lines.items()]
    header = ["start", *(f"{100 * density:g} %" for density in densities)]
    (HERE / f"{name}.txt").write_text(
        f"{table(header, rows, left=[0])}\nTest accuracy (%), mean and 95 % t interval, n = 5.\n"
    )


def _beside(
    lines: Mapping[str, Mapping[str, Line]], densities: Sequence[float], titles: Mapping[str, str], label: str
) -> Figure:
    figure = Figure(figsize=(11.5, 4.2), layout="constrained", dpi=100)
    for axes, network in zip(figure.subplots(1, 2), NETWORKS, strict=True):
        draw_lines(axes, 100 * np.array(densities), lines[network])
        axes.set_title(titles[network], fontsize=9)
        axes.set_ylabel(label)
    return figure


def _written(name: str, found: Any) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    _drawn(name)


def _drawn(name: str) -> None:
    save_figure(PARTS[name][1](json.loads((HERE / f"{name}.json").read_text())), HERE / f"{name}.png")


PARTS: Mapping[str, tuple[Callable[[], None], Callable[[Mapping[str, Any]], Figure]]] = {
    "signal": (signal, draw_signal),
    "training": (training, draw_training),
    "pruned-before": (pruned_before, draw_pruned_before),
    "learning-rate": (learning_rate, draw_learning_rate),
}

if __name__ == "__main__":
    if sys.argv[1] == "draw":
        for drawn in sys.argv[2:]:
            _drawn(drawn)
    else:
        PARTS[sys.argv[1]][0]()
