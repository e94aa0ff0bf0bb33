"""Outputs of any class go to JAX and back: what is no array stays with the program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

from es.translation.arrays import to_jax
from es.translation.functions import torch_batch_function, torch_network
from es.translation.outputs import plain, restored


class Mixture(nn.Module):
    """Returns a distribution: an object with sizes, numbers and other distributions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.means = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> Distribution:
        means = self.means(x)
        return MixtureSameFamily(Categorical(logits=self.weights(x)), Normal(means, torch.ones_like(means)))


def surprise(outputs: Distribution, targets: torch.Tensor) -> torch.Tensor:
    return -outputs.log_prob(targets).mean()


@pytest.mark.parametrize("count", [5, 7], ids=["the example's batch", "another batch"])
def test_a_loss_may_ask_a_distribution(count):
    model = Mixture().eval()
    network = torch_network(model, torch.randn(5, 3))
    example = network.apply(to_jax(dict(model.named_parameters())), jnp.ones((5, 3)))
    loss = torch_batch_function(surprise, example, torch.zeros(5), network.restored)
    members = {name: jnp.stack([to_jax(p.detach()), to_jax(0.5 * p.detach())]) for name, p in model.named_parameters()}
    x, y = torch.randn(count, 3), torch.randn(count)
    found = jax.jit(jax.vmap(lambda params: loss(network.apply(params, to_jax(x)), to_jax(y))))(members)
    wanted = [surprise(model(x), y).item()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    wanted.append(surprise(model(x), y).item())
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_sizes_and_numbers_of_objects_come_back_as_they_were():
    outputs = Normal(torch.zeros(4, 2), torch.ones(4, 2))
    tree = plain(outputs, to_jax, "Normal")
    assert len(jax.tree.leaves(tree)) == 2
    back = restored(outputs, tree)
    assert type(back) is Normal
    assert isinstance(back.batch_shape, torch.Size)
    assert back.batch_shape == (4, 2)


def test_a_list_with_an_entry_for_each_example_is_as_long_as_the_batch():
    example = {"features": [torch.zeros(3), torch.ones(3)], "logits": torch.zeros(2, 1)}
    tree = plain({"features": [torch.ones(3)] * 4, "logits": torch.zeros(4, 1)}, to_jax, "Net")
    assert len(restored(example, tree)["features"]) == 4
    assert len(restored(example, {**tree, "features": tree["features"][:1]})["features"]) == 1
