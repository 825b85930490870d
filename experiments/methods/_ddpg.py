r"""Deep deterministic policy gradient (Lillicrap et al., ICLR 2016), for episodes of a few steps.

An actor :math:`\mu(s) \in [0, 1]` and a critic :math:`Q(s, a)`, each with two hidden layers, and
slowly following copies :math:`\mu', Q'` of both. From a batch of transitions the critic learns

.. math:: y = r - b + \gamma\, Q'(s', \mu'(s')) \quad (\text{without the last term at the end}),

by least squares, and the actor climbs :math:`Q(s, \mu(s))`. As in AMC (He et al., ECCV 2018) every
transition of an episode has the reward of the whole, :math:`\gamma = 1`, a moving average
:math:`b` of past rewards is taken off it, and the exploring noise is a truncated normal one whose
deviation falls exponentially after some episodes that only explore.
"""

import dataclasses
import functools
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

PyTree = Any
Network = list[tuple[jax.Array, jax.Array]]
"""The kernel and the bias of every layer."""
Policy = Callable[[np.ndarray], float]
"""From a state to an action, from 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Those of AMC, by default."""

    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    follow: float = 0.01
    """How much of the networks their copies take over in an update."""
    batch_size: int = 64
    discount: float = 1.0
    baseline_decay: float = 0.95
    noise: float = 0.5
    """The deviation of the exploring noise."""
    noise_decay: float = 0.99
    """What it is multiplied by after every episode that learns."""
    memory: int = 2000
    """Transitions that are remembered."""


class Transition(NamedTuple):
    """One step of an episode, or a batch of them; ``last`` is 1 at the end, else 0."""

    state: Any
    action: Any
    reward: Any
    next_state: Any
    last: Any


class Episode(NamedTuple):
    """States (steps, features), the actions that were taken in them (steps,), and the reward."""

    states: np.ndarray
    actions: np.ndarray
    reward: float


class Agent(NamedTuple):
    """Both networks, their copies, and Adam's states."""

    actor: Network
    critic: Network
    slow_actor: Network
    slow_critic: Network
    actor_state: optax.OptState
    critic_state: optax.OptState


class Found(NamedTuple):
    """The best episode, the reward of every one, and the agent at the end."""

    best: Episode
    rewards: list[float]
    agent: Agent


def make_agent(key: jax.Array, features: int, settings: Hyperparameters) -> Agent:
    """An agent that has learned nothing."""
    actor_key, critic_key = jax.random.split(key)
    hidden = settings.hidden
    actor = _network(actor_key, [features, hidden, hidden, 1])
    critic = _network(critic_key, [features + 1, hidden, hidden, 1])
    return Agent(
        actor,
        critic,
        actor,
        critic,
        optax.adam(settings.actor_rate).init(actor),
        optax.adam(settings.critic_rate).init(critic),
    )


def _network(key: jax.Array, widths: list[int]) -> Network:
    """Uniform within 1/sqrt(inputs); 0.003 in the last layer, so that it starts near its middle."""
    layers = []
    for i, (k, n, m) in enumerate(
        zip(jax.random.split(key, len(widths) - 1), widths[:-1], widths[1:], strict=True)
    ):
        bound = 3e-3 if i == len(widths) - 2 else n**-0.5
        kernel, bias = (
            jax.random.uniform(x, shape, minval=-bound, maxval=bound)
            for x, shape in zip(jax.random.split(k), [(n, m), (m,)], strict=True)
        )
        layers.append((kernel, bias))
    return layers


def _apply(network: Network, x: jax.Array) -> jax.Array:
    for kernel, bias in network[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = network[-1]
    return (x @ kernel + bias)[..., 0]


@jax.jit
def act(actor: Network, state: jax.Array) -> jax.Array:
    r""":math:`\mu(s)`, of one state or of a batch of them."""
    return jax.nn.sigmoid(_apply(actor, state))


def value(critic: Network, state: jax.Array, action: jax.Array) -> jax.Array:
    r""":math:`Q(s, a)`, of one state and action or of a batch of them."""
    return _apply(critic, jnp.concatenate([state, action[..., None]], axis=-1))


@functools.partial(jax.jit, static_argnames="settings")
def learn(agent: Agent, batch: Transition, baseline: jax.Array, settings: Hyperparameters) -> Agent:
    """One update of the critic, then one of the actor, then both copies follow."""
    following = value(agent.slow_critic, batch.next_state, act(agent.slow_actor, batch.next_state))
    target = batch.reward - baseline + settings.discount * (1 - batch.last) * following

    def error(critic: Network) -> jax.Array:
        return jnp.mean((value(critic, batch.state, batch.action) - target) ** 2)

    gradients = jax.grad(error)(agent.critic)
    updates, critic_state = optax.adam(settings.critic_rate).update(gradients, agent.critic_state)
    critic: Network = optax.apply_updates(agent.critic, updates)

    def loss(actor: Network) -> jax.Array:
        return -jnp.mean(value(critic, batch.state, act(actor, batch.state)))

    gradients = jax.grad(loss)(agent.actor)
    updates, actor_state = optax.adam(settings.actor_rate).update(gradients, agent.actor_state)
    actor: Network = optax.apply_updates(agent.actor, updates)
    return Agent(
        actor,
        critic,
        optax.incremental_update(actor, agent.slow_actor, settings.follow),
        optax.incremental_update(critic, agent.slow_critic, settings.follow),
        actor_state,
        critic_state,
    )


def truncated_normal(mean: float, deviation: float, uniform: float) -> float:
    """The point of a normal distribution cut to [0, 1] below which ``uniform`` of it lies."""
    normal = NormalDist(mean, deviation)
    low, high = normal.cdf(0.0), normal.cdf(1.0)
    probability = low + uniform * (high - low)
    if not 0 < probability < 1:
        return min(1.0, max(0.0, mean))
    return min(1.0, max(0.0, normal.inv_cdf(probability)))


def search(
    play: Callable[[Policy], Episode],
    *,
    features: int,
    episodes: int,
    exploring: int,
    seed: int,
    settings: Hyperparameters | None = None,
) -> Found:
    """Plays and learns; the seed fixes every number.

    Args:
        play: plays one episode by a policy. It may take other actions than the policy's; those
            that it returns are learned from.
        features: of a state.
        episodes: how many are played, at least 1.
        exploring: the first ones, from which nothing is learned yet.
        seed: of the networks, the noise and the batches.
        settings: ``None`` is AMC's.
    """
    settings = settings or Hyperparameters()
    random = np.random.default_rng([seed, 0xDD96])
    agent = make_agent(jax.random.key(int(random.integers(2**31))), features, settings)
    memory: list[Transition] = []
    best: Episode | None = None
    rewards: list[float] = []
    baseline, deviation = 0.0, settings.noise

    def policy(state: np.ndarray) -> float:
        action = float(act(agent.actor, jnp.asarray(state, jnp.float32)))
        return truncated_normal(action, deviation, random.uniform())

    for number in range(episodes):
        episode = play(policy)
        baseline = (
            episode.reward
            if not rewards
            else settings.baseline_decay * baseline + (1 - settings.baseline_decay) * episode.reward
        )
        rewards.append(episode.reward)
        if best is None or episode.reward > best.reward:
            best = episode
        memory = [*memory, *_transitions(episode)][-settings.memory :]
        if number < exploring:
            continue
        for _ in range(len(episode.actions)):
            picks = [memory[i] for i in random.integers(len(memory), size=settings.batch_size)]
            batch = Transition(*(np.asarray(x, np.float32) for x in zip(*picks, strict=True)))
            agent = learn(agent, batch, jnp.float32(baseline), settings)
        deviation *= settings.noise_decay
    assert best is not None
    return Found(best, rewards, agent)


def _transitions(episode: Episode) -> list[Transition]:
    steps = len(episode.actions)
    return [
        Transition(
            episode.states[t],
            episode.actions[t],
            episode.reward,
            episode.states[min(t + 1, steps - 1)],
            float(t == steps - 1),
        )
        for t in range(steps)
    ]
