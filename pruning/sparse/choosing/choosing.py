"""Which backend runs a layer: dense is always a candidate, and what is chosen was compared with it.

    layer, its sparse form, the arguments of its first call ─▶ Choice, and the module that won

First each product inside the sparse form gets the backend that is fastest on its inputs; then the sparse form as a
whole runs against the layer it stands for. A sparse form that gives other numbers than its layer loses, with a warning.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from pruning.calls.structures import map_tensors, tensors_in
from pruning.calls.users_code import one_line
from pruning.errors import DeviceError, UnknownName, unknown
from pruning.sparse.choices import Choosing, Known, hardware, recall, remember
from pruning.sparse.choosing.closeness import relative_error, tolerance
from pruning.sparse.choosing.timing import fastest
from pruning.sparse.kernels.panel_plan import union_density
from pruning.sparse.weights.weight import Sparse, named_as_dense

# Why a layer that has a sparse form stays dense.
FASTER, CHEAPER = "dense is faster here", "dense by the cost model"
_SHORTLIST = 3


@dataclass(frozen=True)
class Choice:
    """What runs a layer, and why.

    Attributes:
        backends: the backends of each sparse weight, by its name in the layer; empty where the layer stayed dense.
        dense_seconds: the time of the layer as it was; None where nothing was measured.
        sparse_seconds: the time of its sparse form with the best backends found; None where nothing was measured.
        reason: why it stayed dense; empty where it did not.
    """

    backends: dict[str, str]
    dense_seconds: float | None
    sparse_seconds: float | None
    reason: str


class Undecided(nn.Module):
    """Stands for a layer until its first call, which chooses; then hands every call on to what won.

    Args:
        name: the name of the layer, for messages.
        layer: masked and dense.
        form: its sparse form.
        choosing: how to choose.
        training: whether a step is timed with its backward pass.
    """

    def __init__(self, name: str, layer: nn.Module, form: nn.Module, choosing: Choosing, training: bool) -> None:
        super().__init__()
        self.name, self.layer, self.form = name, layer, form
        self.choosing, self.with_gradients = choosing, training
        self.choice: Choice | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # a network may ask its layer for more than a forward pass
            return getattr(super().__getattr__("layer"), name)

    @property
    def winner(self) -> nn.Module:
        """The layer or its sparse form, whichever won; the layer where it was never called."""
        return self.form if self.choice is not None and self.choice.backends else self.layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the winner, which the first call chooses."""
        if self.choice is None:
            with torch.random.fork_rng(), torch.set_grad_enabled(self.with_gradients):
                self.choice = _decided(self, args, kwargs)
        return self.winner(*args, **kwargs)


def _decided(case: Undecided, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Choice:
    try:
        return choose(case, args, kwargs)
    except (UnknownName, DeviceError):  # of the backend that was asked for
        raise
    except Exception as error:  # a network may call its layer in a way that the sparse form does not know
        return Choice({}, None, None, f"its sparse form does not take what it is called with ({one_line(error)})")


def choose(case: Undecided, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Choice:
    """Choose what runs a layer on these arguments, and set the backends of its sparse form.

    Raises:
        UnknownName: a backend asked for that no product here knows.
        DeviceError: a backend asked for that does not run on this device with this type of numbers.
    """
    tensors = tensors_in((args, kwargs))
    if not tensors or not sparse_parts(case.form):
        return Choice({}, None, None, "has nothing to multiply")
    key = _key(case, tensors)
    known = recall(case.choosing, key) if case.choosing.by == "measure" and case.choosing.backend is None else None
    products = _Products(case, known.backends if known else None)
    with products.deciding():
        different = _difference(case, args, kwargs)
    if different is not None:
        warnings.warn(f"{case.name}: {different}; it stays dense", RuntimeWarning, stacklevel=2)
        return Choice({}, None, None, different)
    if case.choosing.backend is not None:
        return Choice(products.backends, None, None, "")
    if case.choosing.by == "model":
        pays = products.modelled < products.modelled_dense
        return Choice(products.backends if pays else {}, None, None, "" if pays else CHEAPER)
    if known is None or known.backends != products.backends:
        winner, times = _layer_race(case, args, kwargs, tensors[0].device)
        known = Known(products.backends, winner, times["dense"], times["sparse"])
        remember(case.choosing, key, known)
    pays = known.winner == "sparse" and set(known.backends.values()) != {"dense"}
    backends = products.backends if pays else {}
    return Choice(backends, known.dense, known.sparse, "" if pays else FASTER)


def sparse_parts(form: nn.Module) -> dict[str, Sparse]:
    """Return the sparse weights of a layer's sparse form, by the names of the dense ones in its layer."""
    return {named_as_dense(name): part for name, part in form.named_modules() if isinstance(part, Sparse)}


class _Products:
    """Chooses the backend of each product of a sparse form at its first call."""

    def __init__(self, case: Undecided, known: dict[str, str] | None) -> None:
        self.case, self.known = case, known
        self.backends: dict[str, str] = {}
        self.modelled = self.modelled_dense = 0.0

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        parts = sparse_parts(self.case.form)
        hooks = [cast(nn.Module, part).register_forward_pre_hook(self._before(name)) for name, part in parts.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(part: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(part, Sparse)
            options = part.options(args[0])
            if name not in self.backends:
                part.backend = self.backends[name] = self._pick(name, part, args, options)
            self.modelled += options[part.backend]
            self.modelled_dense += options["dense"]

        return before

    def _pick(self, name: str, part: Any, args: tuple[Any, ...], options: dict[str, float]) -> str:
        asked, choosing = self.case.choosing.backend, self.case.choosing
        if asked is not None:
            return _asked(asked, part, options, args[0])
        if self.known is not None and self.known.get(name) in options:
            return self.known[name]
        finite = [option for option in options if options[option] < float("inf")]
        ranked = sorted(finite, key=options.__getitem__)
        if choosing.by == "model":
            return ranked[0]
        shortlist = ["dense", *[option for option in ranked if option != "dense"][: _SHORTLIST - 1]]

        def run(option: str) -> Callable[[], object]:
            def once() -> object:
                part.backend = option
                # not the module itself: it would come back here
                return step(part.forward, part.parameters(), args, {}, self.case.with_gradients)

            return once

        return fastest({option: run(option) for option in shortlist}, "dense", args[0].device, choosing.seconds)[0]


def _asked(asked: str, part: Any, options: dict[str, float], inputs: torch.Tensor) -> str:
    known = part.registry().names()
    if asked not in known:
        raise unknown("sparse backend", asked, known)
    if asked not in options:
        raise DeviceError(
            f"backend {asked!r} does not run on {inputs.device} in {inputs.dtype} here (those that do: "
            f"{', '.join(sorted(options))})"
        )
    return asked


def step(
    run: Callable[..., Any],
    parameters: Iterable[torch.Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    gradients: bool,
) -> object:
    """Run something once, and back to its arguments and parameters where gradients are wanted."""
    if not gradients:
        return run(*args, **kwargs)
    args, kwargs = map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), (args, kwargs))
    outputs = [tensor for tensor in tensors_in(run(*args, **kwargs)) if tensor.requires_grad]
    leaves = [tensor for tensor in tensors_in((args, kwargs)) if tensor.requires_grad]
    wanted = [*leaves, *(p for p in parameters if p.requires_grad)]
    if not outputs or not wanted:
        return outputs
    return torch.autograd.grad(outputs, wanted, [torch.ones_like(leaf) for leaf in outputs], allow_unused=True)


def _layer_race(
    case: Undecided, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device
) -> tuple[str, dict[str, float]]:
    pair = {"dense": case.layer, "sparse": case.form}
    with _in_mode(case.with_gradients, *pair.values()):
        runs = {name: _runner(module, args, kwargs, case.with_gradients) for name, module in pair.items()}
        return fastest(runs, "dense", device, case.choosing.seconds)


@contextlib.contextmanager
def _in_mode(training: bool, *modules: nn.Module) -> Iterator[None]:
    """Put modules into training or evaluation mode while the block runs."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.train(training)
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def _runner(module: nn.Module, args: Any, kwargs: Any, gradients: bool) -> Callable[[], object]:
    return lambda: step(module, module.parameters(), args, kwargs, gradients)


def _difference(case: Undecided, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Return how the sparse form differs from its layer on these arguments, or None where it does not."""
    with _in_mode(False, case.layer, case.form):
        wanted, found = (tensors_in(module(*args, **kwargs)) for module in (case.layer, case.form))
    for want, get in zip(wanted, found, strict=True):
        if not (want.is_floating_point() or want.is_complex()):
            continue
        if not (gap := relative_error(get, want)) <= tolerance(want):
            return f"the sparse form differs from the dense layer by {gap:.1e} of its largest output"
    return None


def _key(case: Undecided, tensors: list[torch.Tensor]) -> dict[str, Any]:
    """Return everything that a measurement of a layer depends on."""
    parts = sparse_parts(case.form)
    return {
        **hardware(tensors[0].device),
        "layer": type(case.layer).__name__,
        "options": case.layer.extra_repr(),
        "training": case.with_gradients,
        "weights": {
            name: [list(part.shape), float(f"{part.plan.density:.1e}"), float(f"{union_density(part.plan, 16):.1e}")]
            for name, part in parts.items()
        },
        "inputs": [[list(t.shape), list(t.stride()), str(t.dtype), t.requires_grad] for t in tensors],
    }
