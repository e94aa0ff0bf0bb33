"""The steps of compaction one by one, on a traced network: what was observed, followed, found alive and rewritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from pruning.calls.call import Call
from pruning.compaction.channels import Flags
from pruning.compaction.folding import fold_batch_norms
from pruning.compaction.following import Followed, follow, name_values_written_in_place
from pruning.compaction.inner import inner_modules
from pruning.compaction.liveness import liveness
from pruning.compaction.observing import Observed, observe
from pruning.compaction.rewriting import rewrite

Kept = dict[torch.Tensor, Flags]


def steps(model: nn.Module, example: torch.Tensor, kept: Kept) -> tuple[Any, Observed, Followed]:
    network = fx.symbolic_trace(model.eval())
    observed = observe(network, (example,))
    return network, observed, follow(network, observed, kept, {})


def by_target(flags: Any) -> dict[str, list[bool]]:
    return {str(node.target): each.tolist() for node, each in flags.items()}


def masked_pair() -> tuple[nn.Sequential, Kept]:
    """Two linear layers, of whose three units in between only the first is seen by the second layer."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    weight, keep = model[1].get_parameter("weight"), np.array([[True, False, False]])
    weight.data[:, 1:] = 0.0
    return model, {weight: keep}


def test_a_run_shows_shapes_shared_memory_and_what_is_written():
    network = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True)))
    observed = observe(network, (torch.ones(1, 2, 2),))
    given, flat, relu, _ = network.graph.nodes
    assert (observed.shapes[given], observed.shapes[flat]) == ((1, 2, 2), (1, 4))
    assert observed.aliases[flat] == {given}
    assert observed.written[relu] == {flat} and not observed.written[flat]


def test_what_is_written_in_place_is_read_by_its_new_name():
    def called(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.relu_()
        return y * 2

    network = fx.symbolic_trace(called)
    observed = observe(network, (torch.ones(1, 2),))
    _, _, relu, product, _ = network.graph.nodes
    assert product.args[0] is not relu
    name_values_written_in_place(network, observed)
    assert product.args[0] is relu


def test_a_unit_that_nobody_sees_is_not_needed_and_not_present():
    model, kept = masked_pair()
    network, _, followed = steps(model, torch.ones(1, 2), kept)
    alive = liveness(network.graph, followed)
    assert by_target(alive.needed) == {"0": [True, False, False], "1": [True]}
    assert by_target(alive.present) == {"0": [True, False, False], "1": [True]}


def test_a_network_is_rewritten_as_narrow_as_what_is_present():
    model, kept = masked_pair()
    example = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    expected = model(example)
    network, observed, followed = steps(model, example, kept)
    found = rewrite(network, observed, followed, liveness(network.graph, followed))
    network.recompile()
    assert [(row.name, row.inputs_left, row.outputs_left) for row in found.layers] == [("0", 2, 1), ("1", 1, 1)]
    assert torch.allclose(network(example), expected)
    assert model[0].get_parameter("weight").shape == (3, 2)


def test_a_batch_norm_becomes_part_of_the_layer_before_it_unless_it_is_masked():
    for masked in (False, True):
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        for number, tensor in enumerate((*model[1].parameters(), model[1].get_buffer("running_mean")), start=2):
            nn.init.constant_(tensor, number)
        kept: Kept = {model[1].get_parameter("weight"): np.ones(3, bool)} if masked else {}
        expected = model.eval()(torch.ones(1, 2))
        network, _, followed = steps(model, torch.ones(1, 2), kept)
        assert fold_batch_norms(network, followed, kept) == ({} if masked else {"1": "0"})
        network.recompile()
        assert torch.allclose(network(torch.ones(1, 2)), expected)


class Twice(nn.Module):
    """Calls one block, and another with two shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.shapes = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.once(x) + self.shapes(x[:, :1]) + self.shapes(x)


def test_modules_inside_stand_alone_where_they_are_called_in_one_way():
    found = inner_modules(Twice(), "", Call((torch.ones(1, 2),)))
    assert list(found.modules) == ["once"]
    assert found.refused == {"shapes": "it is called with inputs of different shapes"}
