"""Where a search gets its networks from: one for each seed, in PyTorch or in JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import nn

from lottery.networks.sources.initializing import Init
from lottery.state.identity import module_identity, short_hash
from lottery.state.machine.callers_settings import staying_here
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import check_storable, digest, load_state, state_of
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.torch_modules import clean_copy, prunable
from pruning.uses.uses import NOT_LOOKED_AT, Uses

Make = Callable[[int], Any]
Sizes = tuple[tuple[int, ...], int]


class Source(Protocol):
    """Where a search gets its networks from, one for each seed; every method gives the same for the same seed."""

    @property
    def name(self) -> str:
        """For tables and paths."""
        ...

    @property
    def varies(self) -> bool:
        """Whether another seed gives other weights."""
        ...

    @property
    def framework(self) -> str:
        """`torch` or `jax`."""
        ...

    @property
    def layout(self) -> str:
        """How a weight's axes are ordered, in words."""
        ...

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the parameters and buffers of one seed's network, by name."""
        ...

    def initial_mask(self, seed: int) -> Mask | None:
        """Return the weights already removed from the network of one seed."""
        ...

    def prunable(
        self, seed: int, only: Sequence[str], skip: Sequence[str], uses: Uses = NOT_LOOKED_AT
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that a mask covers, by name."""
        ...

    def facts(self, seed: int) -> Mapping[str, Any]:
        """Return the entries of a ticket's record from which one seed's network can be made again."""
        ...

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's network: structure, code and values."""
        ...

    def starting_at(self, start: Start) -> Source:
        """Return a source whose networks all begin at a ticket."""
        ...

    @property
    def init(self) -> Init:
        """How its weights are drawn."""
        ...

    def with_init(self, init: Init) -> Source:
        """Return a source of the same networks with their weights drawn so; seeds differ."""
        ...

    def drawn(self, seed: int, mask: Mask, init: Init) -> Redrawn:
        """Return one seed's network with its weights drawn under a mask."""
        ...


@dataclass(frozen=True)
class Start:
    """Where the network of every seed begins instead of at its own initialization: at a ticket.

    Attributes:
        params: parameters and buffers, by name.
        mask: the mask of the ticket.
    """

    params: Params
    mask: Mask


@dataclass(frozen=True)
class Redrawn:
    """A network whose weights were drawn under a mask.

    Attributes:
        params: parameters and buffers, by name.
        mask: the mask; another one with the same counts where the scheme chose it.
        left: by name, why a tensor that the mask covers stays as the model made it.
    """

    params: Params
    mask: Mask
    left: Mapping[str, str]


@dataclass(frozen=True)
class ModelSource:
    """A maker of PyTorch modules.

    Attributes:
        name: for tables and paths.
        make: returns a module from a seed; every generator is seeded before each call.
        varies: whether another seed gives other weights (a module instance always gives its own).
        init: redraws its weights, or leaves them.
        start: a ticket that every network begins at, or None.
        sizes: the shape of one example and the number of outputs, where the maker is called with them.
    """

    name: str
    make: Make
    varies: bool
    init: Init = field(default_factory=Init)
    start: Start | None = None
    sizes: Sizes | None = None
    framework: str = "torch"
    layout: str = "as torch stores it: (out, in, *kernel)"

    def build(self, seed: int) -> nn.Module:
        """Return the network of one seed, without wrappers or pruning hooks; all random state is left alone."""
        return self._build(seed)[0]

    def initial_mask(self, seed: int) -> Mask | None:
        """Return the mask that `torch.nn.utils.prune` had left in the network of one seed."""
        return self._build(seed)[1]

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the parameters and buffers of one seed's network, by name."""
        return state_of(self.build(seed))

    def prunable(
        self, seed: int, only: Sequence[str], skip: Sequence[str], uses: Uses = NOT_LOOKED_AT
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors that a mask covers, by name (see `pruning.torch_modules.prunable`)."""
        return prunable(self.build(seed), only, skip, uses)

    def facts(self, seed: int) -> Mapping[str, Any]:
        """Return the sizes that a model was made for, if it was made for any."""
        del seed
        return {} if self.sizes is None else {"sizes": {"input_shape": list(self.sizes[0]), "outputs": self.sizes[1]}}

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's network: structure, code, values, what is trainable and what is pruned."""
        module, mask = replace(self, init=self.init.afresh())._build(seed)
        return short_hash([module_identity(module), digest(dict(mask)) if mask else ""], length=64)

    def starting_at(self, start: Start) -> ModelSource:
        """Return a source whose networks all begin at a ticket; seeds differ in everything else."""
        return replace(self, start=start, varies=True)

    def with_init(self, init: Init) -> ModelSource:
        """Return a source of the same networks with their weights drawn so; seeds differ."""
        return replace(self, init=init, varies=True)

    def without_init(self) -> ModelSource:
        """Return a source of the same networks as their maker leaves them."""
        return replace(self, init=Init())

    def drawn(self, seed: int, mask: Mask, init: Init) -> Redrawn:
        """Return one seed's network as its maker leaves it, with its weights drawn under a mask."""
        bare = replace(self, init=Init(), start=None)
        with staying_here(), seeded_everywhere(seed):
            module = bare._made(seed)[0]
            found = init.redraw(module, seed, mask)
        return Redrawn(state_of(module), chosen(mask, found.keep), found.left)

    def _build(self, seed: int) -> tuple[nn.Module, Mask | None]:
        with staying_here(), seeded_everywhere(seed):
            module, mask = self._made(seed)
            self.init.redraw(module, seed, mask)
        if self.start is not None:
            load_state(module, self.start.params)
            mask = self.start.mask
        return module, mask

    def _made(self, seed: int) -> tuple[nn.Module, Mask | None]:
        """Return what the maker makes, checked; generators are seeded by the caller."""
        with users_code(f"the model {self.name!r}"):
            made = self.make(seed)
            if not isinstance(made, nn.Module):
                raise BadValue(f"model {self.name!r} returned {type(made).__name__}, not a torch.nn.Module")
            module, mask = clean_copy(made)
            if any(tensor.is_cuda for tensor in (*module.parameters(), *module.buffers())):
                # Where it is trained is the trainer's to say; whoever looks at it before has data on the host.
                module = module.cpu()
        check_storable(module)
        lazy = [name for name, p in module.named_parameters() if isinstance(p, nn.UninitializedParameter)]
        if lazy:
            raise BadValue(f"model {self.name!r}: {lazy[0]!r} has no shape yet; run one batch through it first")
        return module, mask


def chosen(mask: Mask, keep: Mapping[str, Any]) -> Mask:
    """Return a mask with the tensors that a scheme chose the entries of."""
    return Mask({name: keep.get(name, own) for name, own in mask.items()})


def require_torch(source: Source, asked: str, instead: str) -> ModelSource:
    """Return a source of PyTorch modules as such.

    Args:
        source: of any networks.
        asked: who needs them, with a verb, for the message: "lottery connect measures".
        instead: what to use for a JAX model, for the message.

    Raises:
        BadValue: its networks are in JAX.

    >>> require_torch(object(), "lottery connect measures", "evolve it")
    Traceback (most recent call last):
    pruning.errors.BadValue: lottery connect measures PyTorch modules, and this model is in JAX: evolve it
    """
    if not isinstance(source, ModelSource):
        raise BadValue(f"{asked} PyTorch modules, and this model is in JAX: {instead}")
    return source
