"""Operations that are views of some layouts and copies of others follow the parameters in all of them."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from es.translation.arrays import to_jax
from es.translation.functions import torch_network

LAYOUTS = {
    "as it comes": lambda x: x,
    "by channels": lambda x: x.to(memory_format=torch.channels_last),
    "tokens": lambda x: x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).reshape(x.shape),
}
COPIES = {
    "contiguous": lambda x: x.contiguous(),
    "by channels": lambda x: x.contiguous(memory_format=torch.channels_last),
    "reshape": lambda x: x.transpose(1, 3).reshape(2, -1),
    "flatten": lambda x: x.transpose(1, 3).flatten(1),
    "to": lambda x: x.to(torch.float64),
    "bilinear": lambda x: nn.functional.interpolate(x, size=(7, 9), mode="bilinear"),
    "bicubic": lambda x: nn.functional.interpolate(x, scale_factor=2, mode="bicubic"),
    "nearest": lambda x: nn.functional.interpolate(x, scale_factor=2),
    "area": lambda x: nn.functional.interpolate(x, size=(3, 2), mode="area"),
    "shuffle": lambda x: nn.functional.pixel_shuffle(x, 2),
    "softmax": lambda x: x.softmax(1),
    "pool": lambda x: nn.functional.avg_pool2d(x, 2),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_copies_where_no_view_will_do_follows_the_parameters(layout, copy):
    """`contiguous`, `reshape` and `to` say that they return views, and return copies of some layouts."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return COPIES[copy](LAYOUTS[layout](x * self.scale))

    model, x = Net(), torch.randn(2, 4, 4, 6)
    network = torch_network(model, x)
    with torch.no_grad():
        model.scale.fill_(2.5)
    found = network.apply({"scale": jnp.asarray(2.5)}, to_jax(x))
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_memory_that_nobody_has_written_is_no_constant():
    class Inverse(nn.Module):
        """Undoes a sort by writing to where nothing was yet, as hashing attention does."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            order = (x * self.scale).argsort(-1)
            back = order.new(*order.shape).scatter_(-1, order, torch.arange(x.shape[1]).expand_as(order))
            return torch.gather(torch.gather(x * self.scale, 1, order), 1, back)

    x = torch.randn(3, 7)
    network = torch_network(Inverse(), x)
    np.testing.assert_allclose(network.apply({"scale": jnp.asarray(-2.0)}, to_jax(x)), -2 * x.numpy(), rtol=1e-5)
