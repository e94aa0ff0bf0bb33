"""Control: a policy is judged by the rewards of its episodes."""

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
from es.tasks.environments import Continuous, Discrete, Environment
from es.tasks.evaluation import evaluation_keys
from pruning.errors import BadValue

Act = Callable[[jax.Array], jax.Array]

OBSERVATIONS = "observations."
MOMENTS = ("mean", "var", "count")


@dataclass(frozen=True, eq=False)
class Control:
    """Fitness is the mean return of whole episodes; all members of a generation play the same ones.

    The policy is deterministic. Of discrete actions it takes the one with the highest output; a continuous action is
    tanh of the outputs, scaled to the action's bounds. A network with the buffers `observations.mean`, `.var` and
    `.count` (float32, the first two of an observation's shape) gets the statistics of all observations acted on in a
    generation added to them, after it. A member with an output that is not a number has a return that is not a number.

    Attributes:
        environment: what is played.
        network: the policy; maps a batch of observations to a batch of `environment.outputs` numbers each.
        space: its evolved parameters.
        episodes: of each member in a generation.
        max_steps: no episode takes more steps; None or more than the environment's own limit stands for that limit.
        validation_episodes: what choices are made on.
        test_episodes: what is only reported on; 0 for no test part.
        seed: of the episodes that networks are measured on.
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

    def absorb(self, fixed: Arrays, seen: Moments) -> Arrays:
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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Statistics of observations.

    Attributes:
        count: float32 scalar, or one for each member.
        mean: of an observation's shape, or one for each member.
        var: likewise; of the whole, not an estimate from a sample.
    """

    count: jax.Array
    mean: jax.Array
    var: jax.Array

    @classmethod
    def of(cls, observations: jax.Array, chosen: jax.Array) -> Moments:
        """Return the statistics of the chosen observations: [..., *shape] by a boolean [...]."""
        axes = tuple(range(chosen.ndim))
        chosen = chosen.reshape(*chosen.shape, *[1] * (observations.ndim - chosen.ndim))
        count = chosen.sum(dtype=jnp.float32)
        # Whatever is not chosen may be infinite: it is replaced, not multiplied by zero.
        mean = jnp.where(chosen, observations, 0.0).sum(axes) / jnp.maximum(count, 1.0)
        var = jnp.where(chosen, (observations - mean) ** 2, 0.0).sum(axes) / jnp.maximum(count, 1.0)
        return cls(count, mean, var)

    def merge(self, other: Moments) -> Moments:
        """Return the statistics of both together (Chan et al. 1983)."""
        count = self.count + other.count
        share = other.count / jnp.maximum(count, 1.0)
        delta = other.mean - self.mean
        mean = self.mean + share * delta
        var = (1 - share) * self.var + share * other.var + share * (1 - share) * delta**2
        return Moments(count, jnp.where(count > 0, mean, self.mean), jnp.where(count > 0, var, self.var))

    def together(self) -> Moments:
        """Return the statistics over all members, of statistics with one row for each."""
        count = self.count.sum()
        rows = self.count.reshape(-1, *[1] * (self.mean.ndim - 1)) / jnp.maximum(count, 1.0)
        mean = (rows * self.mean).sum(0)
        return Moments(count, mean, (rows * (self.var + (self.mean - mean) ** 2)).sum(0))


def rollout(
    environment: Environment, act: Act, keys: jax.Array, *, members: int, steps: int, observed: bool
) -> tuple[jax.Array, Moments]:
    """Play the same episodes with every member, until all have ended or `steps` are taken.

    An episode's key is split into that of its reset and that of its steps; step t uses the latter folded with t.

    Args:
        environment: what is played.
        act: maps observations [P, E, *shape] to outputs [P, E, environment.outputs].
        keys: [E], one for each episode.
        members: P.
        steps: the most steps of an episode.
        observed: whether to gather statistics.

    Returns:
        Returns [P, E] float32, and each member's statistics of the observations that it acted on (of none if not
        `observed`).
    """
    starts, later = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    first, state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)), jax.vmap(environment.reset)(starts)
    )
    step_all = jax.vmap(jax.vmap(environment.step), in_axes=(None, 0, 0))
    nothing = jnp.zeros((members, *environment.observation_shape))
    alive = jnp.ones((members, len(keys)), bool)

    def goes_on(carry: Any) -> jax.Array:
        time, _, _, alive, _, _ = carry
        return (time < steps) & alive.any()

    def advance(carry: Any) -> Any:
        time, observations, state, alive, returns, moments = carry
        outputs = act(observations).astype(jnp.float32)
        if outputs.shape[2:] != (environment.outputs,):
            shape, takes = list(outputs.shape[2:]), environment.outputs
            raise BadValue(f"{environment.name} takes {takes} outputs of the network, not outputs of shape {shape}")
        if observed:
            finite = jnp.isfinite(observations).all(tuple(range(2, observations.ndim)))
            moments = jax.vmap(lambda old, o, chosen: old.merge(Moments.of(o, chosen)))(
                moments, observations, alive & finite
            )
        times = jax.vmap(jax.random.fold_in, in_axes=(0, None))(later, time)
        observations, new, reward, done = step_all(times, state, action_of(environment.action, outputs))
        # Finished episodes are stepped on with the others, which costs less than to hold their states.
        state = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), new, state)
        reward = jnp.where(jnp.isnan(outputs).any(-1), jnp.nan, reward)
        returns = returns + jnp.where(alive, reward, 0.0)
        return time + 1, observations, state, alive & ~done & ~jnp.isnan(returns), returns, moments

    nobody = Moments(jnp.zeros(members), nothing, nothing)
    carry = jnp.int32(0), first, state, alive, jnp.zeros(alive.shape), nobody
    *_, returns, moments = jax.lax.while_loop(goes_on, advance, carry)
    return returns, moments


def action_of(action: Discrete | Continuous, outputs: jax.Array) -> jax.Array:
    """Return the actions that outputs [..., n] stand for: the highest one's index, or tanh scaled to the bounds.

    >>> action_of(Discrete(3), jnp.array([0.1, 0.5, 0.2])).item()
    1
    """
    if isinstance(action, Discrete):
        return jnp.argmax(outputs, -1).astype(jnp.int32)
    middle, half = jnp.asarray(action.high + action.low) / 2, jnp.asarray(action.high - action.low) / 2
    return middle + half * jnp.tanh(outputs).reshape(*outputs.shape[:-1], *action.shape)


def normalize(observations: jax.Array, moments: Moments) -> jax.Array:
    """Return what a policy's first layer makes of observations: standardized and clipped to ±10, as is before any."""
    scaled = (observations - moments.mean) / jnp.sqrt(moments.var + 1e-8)
    return jnp.where(moments.count > 0, jnp.clip(scaled, -10.0, 10.0), observations)


def _turned(arrays: dict[str, jax.Array], names: set[str]) -> dict[str, jax.Array]:
    return {name: array.T if name in names else array for name, array in arrays.items()}


def _updated(fixed: Arrays, prefix: str, moments: Moments) -> dict[str, jax.Array]:
    count, mean, var = (fixed[prefix + part] for part in ("count", "mean", "var"))
    merged = Moments(count, mean, var).merge(moments)
    return {prefix + part: getattr(merged, part).astype(fixed[prefix + part].dtype) for part in MOMENTS}
