"""What single rules of compaction say of constants: a channel that is the same number everywhere, or NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from pruning.compaction.channels import Carry, Channels
from pruning.compaction.observing import observe
from pruning.compaction.rules import Operation, arithmetic, pointwise, pooling, rule_for

NAN = float("nan")


def constants(rule: Any, called: Callable[..., Any], *given: list[float]) -> Any:
    """Return the constants that a rule gives for a call on values with these constants; None where it is dense."""
    network = fx.symbolic_trace(called)
    observed = observe(network, tuple(torch.ones(1, 3, 4) for _ in given))
    sources = [node for node in network.graph.nodes if node.op == "placeholder"]
    (node,) = [node for node in network.graph.nodes if node.op in ("call_module", "call_function", "call_method")]
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    assert rule_for(node, module) is rule
    known = {source: Channels(1, np.array(numbers)) for source, numbers in zip(sources, given, strict=True)}
    found = rule(Operation(node, module, observed, known, {}))
    assert found is None or isinstance(found, Carry)
    return None if found is None else found.channels.constant.tolist()


def same(found: Any, wanted: list[float]) -> bool:
    return found is not None and np.array_equal(found, wanted, equal_nan=True)


def test_a_sum_of_constants_is_one():
    assert same(constants(arithmetic.elementwise, lambda x, y: x + y, [1, 2, NAN], [10, NAN, 3]), [11, NAN, NAN])


def test_a_division_by_a_number_is_followed_and_one_that_may_be_infinite_is_dense():
    assert same(constants(arithmetic.division, lambda x: x / 2, [1, 0, NAN]), [0.5, 0, NAN])
    assert constants(arithmetic.division, lambda x: x / 0, [1, 0, NAN]) is None
    assert constants(arithmetic.division, lambda x, y: x / y, [1, 0, NAN], [1, 1, 1]) is None


def test_dropout_does_nothing_where_it_is_not_training():
    assert same(constants(pointwise.dropout_module, nn.Sequential(nn.Dropout()).eval(), [1, 0, NAN]), [1, 0, NAN])
    rule = pointwise.dropout_function
    assert same(constants(rule, lambda x: F.dropout(x, training=False), [1, 0, NAN]), [1, 0, NAN])
    assert constants(rule, lambda x: F.dropout(x), [1, 0, NAN]) is None


@pytest.mark.parametrize("slopes", [1, 3])
def test_slopes_for_negative_numbers_are_applied_to_constants(slopes):
    layer = nn.Sequential(nn.PReLU(slopes, init=0.25))
    assert same(constants(pointwise.prelu, layer, [-4, 2, NAN]), [-1, 2, NAN])


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"padding": 1, "count_include_pad": False}])
def test_a_mean_over_windows_keeps_a_constant_unless_zeros_from_beyond_the_border_count(options):
    counted = "padding" in options and "count_include_pad" not in options
    wanted = [NAN, 0, NAN] if counted else [3, 0, NAN]
    layer = nn.Sequential(nn.AvgPool1d(2, **options))
    assert same(constants(pooling.average_pooling_module, layer, [3, 0, NAN]), wanted)
    rule = pooling.average_pooling_function
    assert same(constants(rule, lambda x: F.avg_pool1d(x, 2, **options), [3, 0, NAN]), wanted)


def test_means_of_neighbours_keep_constants():
    found = constants(pooling.interpolation, lambda x: F.interpolate(x, scale_factor=2), [3, 0, NAN])
    assert same(found, [3, 0, NAN])


@pytest.mark.parametrize(("value", "wanted"), [(0, [NAN, 0, NAN]), (3, [3, NAN, NAN])])
def test_padding_keeps_the_constant_that_it_pads_with(value, wanted):
    assert same(constants(pooling.padding_function, lambda x: F.pad(x, (1, 1), value=value), [3, 0, NAN]), wanted)


def test_padding_of_channels_is_dense():
    assert constants(pooling.padding_function, lambda x: F.pad(x, (0, 0, 1, 1)), [3, 0, NAN]) is None


def test_no_rule_is_for_what_nobody_registered():
    network = fx.symbolic_trace(nn.Sequential(nn.LayerNorm(4)))
    node = next(node for node in network.graph.nodes if node.op == "call_module")
    assert rule_for(node, network.get_submodule(str(node.target))) is None
