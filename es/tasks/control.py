"""Control tasks: a policy is judged by the rewards of its episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from numpy.typing import NDArray

from es.coordinates import Space, unpack
from es.network import Arrays, Network
from es.tasks import Measured
from es.tasks.environments import Environment
from es.tasks.episodes import Moments, rollout
from es.tasks.evaluation import evaluation_keys
from pruning.errors import BadValue

OBSERVATIONS = "observations."
MOMENTS = ("mean", "var", "count")


@dataclass(frozen=True, eq=False)
class ControlTask:
    """Fitness is the mean return of whole episodes; all members of a generation play the same ones.

    The policy is deterministic. Of discrete actions it takes the one with the highest output; a continuous action is
    tanh of the outputs, scaled to the action's bounds. A network with the buffers `observations.mean`, `.var` and
    `.count` (float32, the first two of an observation's shape) gets the statistics of all observations acted on in a
    generation added to them, after it. A member with an output that is not a number has a return that is not a number.

    Attributes:
        environment: the environment to play.
        network: the policy; maps a batch of observations to a batch of `environment.outputs` numbers each.
        space: its evolved parameters.
        episodes: of each member in a generation.
        max_steps: no episode takes more steps; None or more than the environment's own limit stands for that limit.
        validation_episodes: the number of episodes on which choices are made.
        test_episodes: the number of episodes that are only used to report; 0 for no test part.
        seed: the seed of the episodes that networks are measured on.
        params: all parameters and buffers of such a network, for `flops` alone.
    """

    environment: Environment
    network: Network
    space: Space
    episodes: int = 8
    max_steps: int | None = None
    validation_episodes: int = 32
    test_episodes: int = 32
    seed: int = 0
    params: Arrays | None = field(default=None, repr=False)
    _measure: Callable[[Arrays], jax.Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("max_steps", 1), ("validation_episodes", 1), ("test_episodes", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadValue(f"{name} must be at least {least}, not {value}")
        object.__setattr__(self, "_measure", jax.jit(self._evaluation_returns))

    @property
    def steps(self) -> int:
        """The most steps that an episode takes."""
        limits = [limit for limit in (self.max_steps, self.environment.max_steps) if limit is not None]
        if not limits:
            raise BadValue(
                f"{self.environment.name} does not say how long an episode lasts: set episode_steps, or give "
                "(environment, params) with params.max_steps_in_episode"
            )
        return min(limits)

    @property
    def flops(self) -> float:
        """Operations of one policy in the longest possible generation, without those of the environment.

        Without `params` every weight counts as one multiplication and one addition at each step.
        """
        return self.episodes * self.steps * self._flops_of_a_step

    @property
    def data(self) -> tuple[()]:
        """Nothing: episodes are made, not stored."""
        return ()

    def losses(
        self, data: Any, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
    ) -> tuple[jax.Array, Moments]:
        """Return every member's negative mean return, [P] float32, and the moments of what each observed.

        Raises:
            BadValue: a network whose outputs or statistics do not fit the environment.
        """
        del data
        normalized = self._statistics(fixed)
        # Outside of the loop over steps: to scatter the weights costs more than a step, and so does to read a matrix
        # [outputs, inputs] by its columns, which doubles the time of a generation of small networks.
        turn = self._read_by_columns(fixed)

        def unpacked(vector: jax.Array) -> dict[str, jax.Array]:
            return _turned(unpack(self.space, where, vector), turn)

        evolved = jax.vmap(unpacked)(population)
        policy = jax.vmap(lambda weights, seen: self.network.apply({**fixed, **_turned(weights, turn)}, seen))

        def act(observations: jax.Array) -> jax.Array:
            # The barrier keeps XLA from moving the second turn out of the loop, where it would undo the first.
            return policy(*jax.lax.optimization_barrier((evolved, observations)))

        returns, moments = rollout(
            self.environment,
            act,
            jax.random.split(key, self.episodes),
            members=len(population),
            steps=self.steps,
            observed=bool(normalized),
        )
        return -returns.mean(1).astype(jnp.float32), moments

    def after_generation(self, fixed: Arrays, seen: Moments) -> Arrays:
        """Return `fixed` with the statistics of observations brought up to date."""
        moments = seen.together()
        prefixes = self._statistics(fixed)
        newer = {name: array for prefix in prefixes for name, array in _updated(fixed, prefix, moments).items()}
        return {**fixed, **newer}

    def measure(self, params: Arrays) -> Measured:
        """Return the mean return over the validation episodes and over the test episodes; the loss is its negative."""
        returns = self._measure(dict(params))
        validation = float(returns[: self.validation_episodes].mean())
        test = float(returns[self.validation_episodes :].mean()) if self.test_episodes else None
        return Measured(-validation, validation, None if test is None else -test, test)

    @property
    def evaluation_keys(self) -> jax.Array:
        """Keys of the validation episodes, then of the test episodes; the first stay the same if the number grows."""
        return evaluation_keys(self.seed, self.validation_episodes, self.test_episodes)

    def _evaluation_returns(self, params: Arrays) -> jax.Array:
        def act(observations: jax.Array) -> jax.Array:
            return self.network.apply(params, observations[0])[None]

        return rollout(self.environment, act, self.evaluation_keys, members=1, steps=self.steps, observed=False)[0][0]

    @property
    def _flops_of_a_step(self) -> float:
        if self.params is None:
            return 2.0 * self.space.size
        observation = jax.ShapeDtypeStruct((1, *self.environment.observation_shape), jnp.float32)
        costs: Any = jax.jit(self.network.apply).lower(dict(self.params), observation).cost_analysis()
        return float(costs["flops"])

    def _read_by_columns(self, fixed: Arrays) -> set[str]:
        """Return the names of the evolved matrices that the network transposes or sums over their second axis."""
        space = self.space
        shapes = {
            n: jax.ShapeDtypeStruct(s, d) for n, s, d in zip(space.names, space.shapes, space.dtypes, strict=True)
        }
        observation = jax.ShapeDtypeStruct((1, *self.environment.observation_shape), jnp.float32)
        jaxpr = jax.make_jaxpr(lambda e, f, x: self.network.apply({**f, **e}, x))(
            shapes, dict(fixed), observation
        ).jaxpr
        names = dict(zip(jaxpr.invars, sorted(shapes), strict=False))  # the order of a dictionary's leaves
        found = set()
        for equation in jaxpr.eqns:
            if (kind := equation.primitive.name) not in ("dot_general", "transpose"):
                continue
            axes = equation.params["dimension_numbers"][0] if kind == "dot_general" else ((1,),)
            for operand, contracted in zip(equation.invars, axes, strict=False):
                name = names.get(operand) if isinstance(operand, Var) else None
                if name and len(shapes[name].shape) == 2 and contracted == (1,):
                    found.add(name)
        return found

    def _statistics(self, fixed: Arrays) -> list[str]:
        """Return the prefixes of the statistics of observations among the buffers."""
        prefixes = [name.removesuffix("mean") for name in fixed if f".{name}".endswith(f".{OBSERVATIONS}mean")]
        prefixes = [prefix for prefix in prefixes if all(prefix + part in fixed for part in MOMENTS)]
        for prefix in prefixes:
            if fixed[f"{prefix}mean"].shape != self.environment.observation_shape:
                raise BadValue(
                    f"{prefix}mean has shape {list(fixed[f'{prefix}mean'].shape)}, observations of "
                    f"{self.environment.name} have {list(self.environment.observation_shape)}"
                )
        return prefixes


def _turned(arrays: dict[str, jax.Array], names: set[str]) -> dict[str, jax.Array]:
    return {name: array.T if name in names else array for name, array in arrays.items()}


def _updated(fixed: Arrays, prefix: str, moments: Moments) -> dict[str, jax.Array]:
    count, mean, var = (fixed[prefix + part] for part in ("count", "mean", "var"))
    merged = Moments(count, mean, var).merge(moments)
    return {prefix + part: getattr(merged, part).astype(fixed[prefix + part].dtype) for part in MOMENTS}
