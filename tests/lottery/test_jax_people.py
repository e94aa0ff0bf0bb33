"""Searches of what JAX people bring: modules of Flax and Equinox, and tickets that come back in the same form."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lottery import Data, Ticket, find_ticket, train_ticket
from lottery.run_directory import RunDirectory
from pruning.errors import BadValue, DataError, MaskMismatch
from tests.lottery.helpers import blobs, removed

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY: dict[str, Any] = {"trainer": "es", "generations": 2, "population": 4, "batch_size": 32, "levels": 1}
TINY |= {"tolerance": 1.0, "eval_every": 2, "quiet": True}


class Linen(linen.Module):
    width: int = 8

    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(self.width)(x))
        return linen.Dense(3)(linen.Dropout(0.5, deterministic=not train)(linen.relu(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.norm(self.first(x)))))


def equinox(key: Any) -> eqx.nn.MLP:
    return eqx.nn.MLP(6, 3, 8, 1, key=key)


def hits(outputs: Any) -> float:
    return float((np.asarray(outputs).argmax(1) == blobs(30, seed=1)[1]).mean())


VALIDATION = blobs(30, seed=1)[0]


class TestModules:
    def test_a_linen_module(self, tmp_path):
        ticket = find_ticket(Linen(), DATA, replicates=2, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["Dense_0.kernel", "Dense_1.kernel"]
        assert "batch_stats.BatchNorm_0.mean" in ticket.params
        assert ticket.trained_params is not None
        assert (removed(ticket.mask, ticket.trained_params) == 0).all()
        assert ticket.path is not None
        again = Ticket.load(ticket.path)
        trained, rewound = again.trained(Linen()), again.rewound(Linen())
        assert hits(Linen().apply(trained, VALIDATION, train=False)) == pytest.approx(ticket.info["validation"])
        variables: Any = Linen().init(jax.random.key(ticket.info["seed"]), VALIDATION[:8])
        kernel = variables["params"]["Dense_0"]["kernel"]
        np.testing.assert_array_equal(rewound["params"]["Dense_0"]["kernel"], kernel * ticket.mask["Dense_0.kernel"])
        assert isinstance(trained["batch_stats"]["BatchNorm_0"]["mean"], jax.Array)
        card = (ticket.path / "README.md").read_text()
        assert "variables = ticket.trained(module)" in card and "library_name: jax" in card
        with pytest.raises(MaskMismatch, match="shape"):
            again.trained(Linen(9))
        both = again.trained((trained, Linen()))
        np.testing.assert_array_equal(both[0]["params"]["Dense_0"]["kernel"], trained["params"]["Dense_0"]["kernel"])
        further = train_ticket(again, Linen(), DATA, settings={"strategy": "pgpe"}, out=tmp_path)
        assert RunDirectory(further.run).read_mask(0, 0) == ticket.mask

    def test_an_nnx_module(self, tmp_path):
        module = Nnx(nnx.Rngs(0))
        ticket = find_ticket(module, DATA, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["first.kernel", "second.kernel"]
        trained = ticket.trained(module)
        assert isinstance(trained, Nnx) and not trained.dropout.deterministic
        trained.eval()
        assert hits(trained(VALIDATION)) == pytest.approx(ticket.info["validation"])
        np.testing.assert_array_equal(module.first.kernel[...], Nnx(nnx.Rngs(0)).first.kernel[...])
        find_ticket(Nnx, DATA, replicates=2, out=tmp_path, **TINY)
        with pytest.raises(BadValue, match="2 replicates need a callable"):
            find_ticket(module, DATA, replicates=2, out=tmp_path, **TINY)

    def test_an_equinox_module(self, tmp_path):
        module = equinox(jax.random.PRNGKey(0))
        ticket = find_ticket(module, DATA, out=tmp_path, **TINY)
        assert list(ticket.mask) == ["layers.0.weight", "layers.1.weight"]
        trained = ticket.trained(module)
        assert isinstance(trained, eqx.nn.MLP) and eqx.is_inexact_array(trained.layers[0].bias)
        assert hits(jax.vmap(trained)(jnp.asarray(VALIDATION))) == pytest.approx(ticket.info["validation"])
        find_ticket(equinox, DATA, replicates=2, out=tmp_path, **TINY)

    def test_a_pattern_removes_outputs_along_the_right_axis_of_a_kernel(self, tmp_path):
        ticket = find_ticket(Linen(), DATA, pattern="rows", criterion="magnitude", out=tmp_path, **TINY)
        kept = ticket.mask["Dense_0.kernel"]
        assert list(ticket.mask) == ["Dense_0.kernel"]
        assert kept.shape == (6, 8) and (kept.all(0) | ~kept.any(0)).all()

    def test_one_module_is_one_experiment_and_another_is_another(self, tmp_path):
        runs = [find_ticket(module, DATA, out=tmp_path, **TINY).search for module in (Linen(), Linen(), Linen(9))]
        assert [run is not None and run.run.name == runs[0].run.name for run in runs if runs[0]] == [True, True, False]

    def test_what_fails_in_a_module_is_one_line(self, tmp_path):
        class Wrong(linen.Module):
            @linen.compact
            def __call__(self, x: Any) -> Any:
                return linen.Dropout(0.5, deterministic=False)(linen.Dense(3)(x))

        with pytest.raises((BadValue, DataError), match="InvalidRngError"):
            find_ticket(Wrong(), DATA, out=tmp_path, **TINY)
        with pytest.raises(BadValue, match="this model is in JAX: use trainer 'es'"):
            find_ticket(Linen(), DATA, out=tmp_path)
        ticket = find_ticket(equinox, DATA, out=tmp_path, **TINY)
        with pytest.raises(BadValue, match="is for PyTorch modules; a JAX model runs sparse while it is evolved"):
            ticket.sparse(equinox, VALIDATION)
