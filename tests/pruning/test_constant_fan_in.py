"""Constant fan-in: every unit sums over as many inputs as every other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, UnknownName
from pruning.initializers import generator, get_initializer
from pruning.initializers.constant_fan_in import constant_fan_in
from pruning.initializers.unit_scaled import unit_scaled
from pruning.starts.weight import Weight


def weight(*shape, kept, activation: str | None = "relu"):
    keep = np.zeros(math.prod(shape), bool)
    keep[:kept] = True
    return Weight("w", keep.reshape(shape), activation=activation)


def drawn(of, seed=0, **settings):
    return constant_fan_in(of, np.random.default_rng(seed), **settings)


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([(), (3,), (2, 2)]), st.data())
def test_any_count_is_kept_exactly_and_fans_differ_by_one_at_most(outputs, inputs, taps, data):
    total = outputs * inputs * math.prod(taps)
    kept = data.draw(st.integers(0, total))
    made = drawn(weight(outputs, inputs, *taps, kept=kept))
    fans = made.keep.reshape(outputs, -1).sum(axis=1)
    assert fans.sum() == kept and fans.max() - fans.min() <= 1
    assert np.isfinite(made.values).all()


def test_every_unit_sums_over_exactly_k_inputs_where_they_can_be_divided():
    assert (drawn(weight(30, 40, kept=30 * 7)).keep.sum(axis=1) == 7).all()


def test_weights_have_variance_2_over_the_fan_before_a_relu():
    made = drawn(weight(400, 400, kept=400 * 40))
    assert np.var(made.values[made.keep]) * 40 == pytest.approx(2, rel=0.03)


def test_random_units_get_one_more_and_random_inputs_are_taken():
    mean = np.mean([drawn(weight(4, 6, kept=10), seed).keep for seed in range(2000)], axis=0)
    assert abs(mean - 10 / 24).max() < 0.05


def test_at_density_1_it_is_unit_scaled_bit_for_bit():
    of = weight(20, 30, kept=600)
    dense = unit_scaled(of, generator(0, "w"))
    made = constant_fan_in(of, generator(0, "w"))
    assert made.keep.all() and (made.values == dense).all()


def test_settings_are_those_of_unit_scaled_but_for_the_fan():
    assert get_initializer("constant-fan-in").chooses_mask
    uniform = drawn(weight(50, 50, kept=500), gain=1.0, distribution="uniform")
    assert abs(uniform.values[uniform.keep]).max() <= math.sqrt(3 / 10)
    with pytest.raises(UnknownName, match="did you mean 'uniform'"):
        drawn(weight(5, 5, kept=5), distribution="unifrom")
    with pytest.raises(BadValue, match="name it"):
        drawn(weight(5, 5, kept=5, activation=None))
