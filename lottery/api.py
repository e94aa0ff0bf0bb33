"""The Python entry point."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Search
from lottery.runs.given import Given
from lottery.runs.ticket import Ticket
from lottery.search.levels.progress import Display
from lottery.search.preparing.asking import request_of
from lottery.search.running import run_search
from lottery.settings.keywords import Settings
from lottery.state.machine.bars import bars_wanted
from lottery.state.machine.telling import say
from pruning.calls.calling import Forward
from pruning.errors import BadValue, NoWinningTicket, shown


def find_ticket(
    model: Any = None,
    data: Any = None,
    *,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    recipe: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    force: bool = False,
    resume: bool = False,
    quiet: bool = False,
    **settings: Unpack[Settings],
) -> Ticket:
    """Find the sparsest sub-network that trains, from its saved initialization, as well as the dense network.

    The same call resumes a search that was cut off and returns at once from one that is complete; either is said in one
    line on standard error. More `replicates`, or another `seed`, add to the same run.

    Args:
        model: any `torch.nn.Module` (its weights are the initialization; it is never changed), a callable that makes
            one from a seed (needed for replicates), a name from `lottery list models`, or `package.module:callable`.
            For the trainers `es` and `optax` also a JAX model, or a callable that makes one from `seed`, `key` or
            `rngs`: a pair `(params, apply)`, a module of Flax Linen (begun by its `init` on a batch), Flax nnx or
            Equinox (called on one example at a time), `(variables, module)`, `(module, state)`, a `TrainState`, Haiku's
            `transform`.
        data: `(X, y)` arrays or tensors, a `Dataset` or a list of dictionaries, a `DataLoader`, two or three of these
            or a dictionary of them (`train`, `validation`, `test`), a name, a path, or `Data(train=…, …)`. Without a
            validation part one is split off by seed. For the trainer `es` also an environment of gymnax's or Brax's
            kind, `(environment, params)`, or a function `fitness(params, key)` of a JAX model's parameters, which then
            is the metric (`Fitness(function, higher_is_better=False)` for a cost).
        loss: `loss(outputs, targets)`; by default cross-entropy for integer labels, mean squared error for floats, and
            the loss in the model's outputs (`outputs.loss`) for batches that are no `(inputs, targets)` pair; `"own"`
            asks for that one.
        metric: `metric(outputs, targets)`, higher is better: it sees the outputs and targets of a whole part at once,
            on the CPU. Or an object with `update`, `compute` and `reset` (torchmetrics), the name of one of
            scikit-learn's scorers (`"f1"`), `"loss"` for the loss itself, or a `Metric`, which can say that it is a
            mean over examples (`additive=True`) or an error. By default accuracy (over labels that the loss does not
            ignore), the squared error, or the loss itself where labels are no tensor.
            A batch that is not an `(inputs, targets)` pair is handed to model, loss and metric whole.
        forward: `forward(model, batch)` returns the outputs for a batch as its loader gives it, where that is another
            call than the default: a tuple is spread, a mapping gives keywords, anything else is one argument.
        recipe: a name from `lottery list recipes`; everything else here beats it.
        config: a TOML file or a mapping of settings; beats the recipe.
        out: the folder in which runs are kept.
        force: start over.
        resume: go on with a stored run though nothing tells whether it is of the same experiment: a model, a loss or a
            `DataLoader` that gives something else each time. Without it that is an error.
        quiet: no progress bars (there are none either where standard error is not a terminal), and no line that says
            what the masks cover (`ticket.search.coverage`).
        **settings: of the search and of its trainer (docs/settings.md, `lottery list settings`): `levels`,
            `replicates`, `trainer`, `steps`, `lr`, `strategy`, … `criterion` may also be a function
            `score(trained, job)`, `optimizer` and `schedule` functions, and `train` a whole training loop of your own.

    Returns:
        The winning ticket, with every level of every replicate under `.search`.

    Raises:
        UsageError: a wrong name, value, shape, file or device; nothing was trained.
        NoWinningTicket: no pruned level matched the dense network; the search is in its `.search`.
        Diverged: no replicate trained to finite weights.

    >>> ticket = find_ticket("mlp", "digits", levels=2, steps=60, tolerance=0.1, out=tmp)
    >>> round(ticket.density, 2)
    0.64
    """
    if not isinstance(out, str | os.PathLike):
        raise BadValue(f"out must be a folder, not {shown(out)}")
    request = request_of(Given(model, data, loss, metric, forward), settings, recipe, config)
    bars = bars_wanted(quiet)
    search = run_search(
        dataclasses.replace(request, out=Path(out), force=force, resume=resume),
        Display(bars, None, None if quiet else say),
    )
    model, data = request.given.model, request.given.data
    named = frozenset(given for given in (model, data) if isinstance(given, str))
    return dataclasses.replace(_winning_ticket(search), named=named)


def _winning_ticket(search: Search) -> Ticket:
    """Return the winning ticket of a search; raises `NoWinningTicket` where there is none."""
    replicate = search.winning_replicate
    if replicate is None:
        raise NoWinningTicket(
            f"no winning ticket: {search.reason}; raise `tolerance` to accept more, or take any level of "
            f"`error.search.levels` with Ticket.load(replicate.path) (all in {search.run})",
            search,
        )
    return dataclasses.replace(Ticket.load(replicate.path), search=search)
