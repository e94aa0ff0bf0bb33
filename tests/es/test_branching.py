"""torch code that branches: on labels and masks it is translated and held to its branch, on all else it is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from es.jax_models.functions import jax_network
from es.translation.arrays import batch_to_jax, to_jax
from es.translation.functions import torch_batch_function, torch_network
from pruning.errors import BadValue


class ChecksItsLabels(nn.Module):
    """Raises for a label that it has no class for, and returns its loss, as many a model of a library does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if labels.max() >= 3:
            raise ValueError("a label is too large")
        return nn.functional.cross_entropy(self.fc(x), labels)


class ChecksWhatIsMeasured(ChecksItsLabels):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if x.mean() > 100:
            raise ValueError("not normalized")
        return super().forward(x, labels)


class ChecksItsOutputs(ChecksItsLabels):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = super().forward(x, labels)
        return loss if loss < 100 else loss * 0.5


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def test_a_check_of_labels_is_translated():
    model, (x, y) = ChecksItsLabels(), batch()
    network = torch_network(model, (x, y))
    params = to_jax(dict(model.named_parameters()))
    np.testing.assert_allclose(network.apply(params, to_jax((x, y))), model(x, y).item(), rtol=1e-5)


def test_where_the_other_branch_would_be_taken_there_is_no_number():
    model, (x, y) = ChecksItsLabels(), batch()
    network = torch_network(model, (x, y))
    loss = network.apply(to_jax(dict(model.named_parameters())), (to_jax(x), jnp.asarray(y.numpy()).at[0].set(3)))
    assert jnp.isnan(loss)


class ComparesItsLabels(ChecksItsLabels):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        first = labels[:1]
        return super().forward(x, labels) * (1 if torch.equal(first, first * 0) else 2)


@pytest.mark.parametrize("kind", [ChecksWhatIsMeasured, ChecksItsOutputs, ComparesItsLabels])
def test_other_branches_are_refused(kind):
    with pytest.raises(BadValue, match=f"{kind.__name__} reads the values of a tensor"):
        torch_network(kind(), batch())


def test_a_loss_may_branch_on_targets_only():
    def on_targets(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.mean() if (targets >= 0).all() else outputs.sum()

    def on_classes(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.mean() if (outputs.argmax(1) >= 0).all() else outputs.sum()

    outputs, targets = torch.randn(6, 3), batch()[1]
    loss = torch_batch_function(on_targets, outputs, targets)
    np.testing.assert_allclose(loss(to_jax(outputs), to_jax(targets)), outputs.mean().item(), rtol=1e-5)
    with pytest.raises(BadValue, match="on_classes reads the values"):
        torch_batch_function(on_classes, outputs, targets)


def test_what_cannot_be_no_number_is_refused():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.fc(x).argmax(1) if labels.max() < 3 else labels

    with pytest.raises(BadValue, match="Counts reads the values"):
        torch_network(Counts(), batch())


def test_a_message_may_show_a_tensor():
    class Explains(ChecksItsLabels):
        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            why = f"{labels.sum()} labels, {self.fc.bias.sum():.3f} in the mean"
            torch._check(bool(labels.max() < 3), lambda: why)
            return super().forward(x, labels)

    model, (x, y) = Explains(), batch()
    network = torch_network(model, (x, y))
    params = to_jax(dict(model.named_parameters()))
    np.testing.assert_allclose(network.apply(params, to_jax((x, y))), model(x, y).item(), rtol=1e-5)


class AsksForItsLoss(ChecksItsLabels):
    """Returns a loss where a switch in the batch says so."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor, return_loss: bool = False) -> torch.Tensor:
        assert bool(torch.ops.aten._is_all_true(labels >= 0))
        return super().forward(x, labels) if return_loss else self.fc(x)


def test_a_switch_in_a_batch_is_read_by_code():
    model, (x, y) = AsksForItsLoss(), batch()
    given = {"x": x, "labels": y, "return_loss": True}
    network = torch_network(model, batch_to_jax(given))
    params = to_jax(dict(model.named_parameters()))
    wanted = model(**given).item()
    np.testing.assert_allclose(jax.jit(network.apply)(params, batch_to_jax(given)), wanted, rtol=1e-5)


@pytest.mark.parametrize("doubled", [True, False])
def test_a_function_of_jax_reads_a_switch_as_it_was(doubled):
    network, params = jax_network(
        {"w": jnp.ones(())}, lambda tree, given: given["x"] * tree["w"] * (2 if given["doubled"] else 1)
    )
    given = batch_to_jax({"x": torch.ones(3), "doubled": doubled})
    assert jax.jit(network.apply)(params, given).tolist() == [2.0 if doubled else 1.0] * 3
