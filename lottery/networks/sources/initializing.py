"""How a source draws the weights of its networks: by a scheme, under a mask or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import nn

from lottery.networks.initializers.first import FIRST
from lottery.state.tensors import digest
from pruning.calls.users_code import users_code
from pruning.initializers import Drawn, Initializer, draw, get_initializer
from pruning.mask import Mask
from pruning.starts.followed import Keep, followed_tensors
from pruning.starts.tensor import Tensor
from pruning.starts.torch_tensors import torch_tensors, zero_biases
from pruning.uses.uses import NOT_LOOKED_AT, Uses

NOTHING_DRAWN = Drawn({}, {}, {})


def _not_looked_at() -> Uses:
    return NOT_LOOKED_AT


@dataclass(frozen=True, eq=False)
class Init:
    """How weights are drawn.

    Attributes:
        scheme: the initializer, with its settings.
        uses: returns how the network uses its tensors; asked once, when something is drawn.
        last: what was drawn last, by what it was drawn for: a search builds one network many times.
    """

    scheme: Initializer = field(default_factory=lambda: get_initializer("model"))
    uses: Callable[[], Uses] = _not_looked_at
    last: dict[tuple[Any, ...], Drawn] = field(default_factory=dict, repr=False)

    def afresh(self) -> Init:
        """Return the same, which draws again: to find out whether a scheme gives the same each time."""
        return Init(self.scheme, self.uses)

    @property
    def changes(self) -> bool:
        """Whether it draws anything."""
        return self.scheme.name != "model"

    @property
    def first(self) -> bool:
        """Whether a PyTorch network is drawn by PyTorch's own generator, dense, as in the first runs."""
        return self.scheme.name in FIRST and not self.scheme.to

    def redraw(self, module: nn.Module, seed: int, mask: Mask | None) -> Drawn:
        """Draw the weights of a module in place; biases of their layers become 0.

        Args:
            module: as its maker left it. PyTorch's generator is seeded.
            seed: of everything random here.
            mask: what is kept; None for everything.

        Returns:
            What was drawn, and why the rest was not; nothing where PyTorch's generator drew.

        Raises:
            BadValue: a weight that the scheme cannot serve.
        """
        if not self.changes:
            return NOTHING_DRAWN
        if self.first:
            FIRST[self.scheme.name](module)
            return NOTHING_DRAWN
        keep = {} if mask is None else mask
        owned = torch_tensors(module, keep, self.uses())
        drawn = self._draw([each.tensor for each in owned], seed)
        written = [each for each in owned if each.tensor.name in drawn.values]
        computed = {
            each.tensor.name: f"{type(each.layer).__name__} computes it from other tensors"
            for each in written
            if not each.write(drawn.values[each.tensor.name])
        }
        zero_biases([each for each in written if each.tensor.name not in computed])
        return _with_rest(drawn, computed, keep)

    def redrawn(
        self, arrays: Mapping[str, NDArray[Any]], seed: int, mask: Mask | None
    ) -> tuple[dict[str, NDArray[Any]], Drawn]:
        """Return the arrays of a JAX model with its weights drawn, and what was drawn."""
        if not self.changes:
            return dict(arrays), NOTHING_DRAWN
        keep = {} if mask is None else mask
        drawn = self._draw(followed_tensors(real_shapes(arrays), keep, self.uses()), seed)
        changed = {name: value.astype(arrays[name].dtype) for name, value in drawn.values.items()}
        return {**arrays, **changed}, _with_rest(drawn, {}, keep)

    def _draw(self, tensors: Sequence[Tensor], seed: int) -> Drawn:
        masked = {tensor.name: tensor.keep for tensor in tensors if not tensor.keep.all()}
        key = (seed, digest(masked), *((tensor.name, tensor.keep.shape) for tensor in tensors))
        if key not in self.last:
            with users_code(f"the initializer {self.scheme.name!r}"):
                drawn = draw(tensors, self.scheme, seed)
            self.last.clear()
            self.last[key] = drawn
        return self.last[key]


def _with_rest(drawn: Drawn, computed: Mapping[str, str], keep: Keep) -> Drawn:
    """Return what was drawn, with the reasons for what was not."""
    values = {name: value for name, value in drawn.values.items() if name not in computed}
    rest = {name: "what it does in the network is not known" for name in keep if name not in drawn.keep}
    return Drawn(values, drawn.keep, {**rest, **drawn.left, **computed})


def real_shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of real numbers."""
    return {name: array.shape for name, array in arrays.items() if array.dtype.kind not in "biuc"}
