"""The agent that chooses layer sparsities: it learns, repeats, and updates as the paper says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.methods import _ddpg, amc
from experiments.methods._ddpg import Episode, Hyperparameters, Transition

from ..grda_optax.trees import assert_same_bits

QUICK = Hyperparameters(hidden=32, actor_rate=3e-3, critic_rate=1e-2, follow=0.1, noise_decay=0.97)


def toy(policy):
    """One step; the reward is best at 0.8 in one state and at 0.3 in the other, in turns."""
    toy.turn = 1 - toy.turn
    state = np.array([toy.turn, 1.0], np.float32)
    action = policy(state)
    best = 0.8 if toy.turn else 0.3
    return Episode(state[None], np.array([action]), -((action - best) ** 2))


def play_toy(seed):
    toy.turn = 0
    return _ddpg.search(toy, features=2, episodes=400, exploring=50, seed=seed, settings=QUICK)


@pytest.mark.slow
def test_it_learns_the_best_action_of_each_state():
    found = play_toy(0)
    for turn, best in ((1, 0.8), (0, 0.3)):
        action = float(_ddpg.act(found.agent.actor, jnp.array([turn, 1.0])))
        assert action == pytest.approx(best, abs=0.08)
    assert np.mean(found.rewards[-50:]) > np.mean(found.rewards[:50]) + 0.03
    assert found.best.reward == max(found.rewards)


def test_the_seed_fixes_every_number():
    short = {"features": 2, "episodes": 30, "exploring": 10, "settings": QUICK}
    runs = []
    for seed in (3, 3, 4):
        toy.turn = 0
        runs.append(_ddpg.search(toy, seed=seed, **short))
    assert runs[0].rewards == runs[1].rewards != runs[2].rewards
    assert_same_bits(runs[0].agent.actor, runs[1].agent.actor)


@pytest.mark.slow
def test_an_update_is_that_of_the_paper():
    """The critic's target by hand; the actor climbs the new critic; the copies follow."""
    settings = Hyperparameters(hidden=8, actor_rate=1e-3, critic_rate=1e-2, follow=0.25)
    agent, slow = (_ddpg.make_agent(jax.random.key(i), 3, settings) for i in range(2))
    # Larger than they start, so that no gradient is next to nothing.
    agent, slow = jax.tree.map(lambda x: 10 * x, (agent, slow))
    agent = agent._replace(slow_actor=slow.actor, slow_critic=slow.critic)
    random = np.random.default_rng(0)
    batch = Transition(
        state=random.normal(size=(6, 3)).astype(np.float32),
        action=random.uniform(size=6).astype(np.float32),
        reward=np.ones(6, np.float32),
        next_state=random.normal(size=(6, 3)).astype(np.float32),
        last=np.array([0, 0, 0, 0, 1, 1], np.float32),
    )
    after = _ddpg.learn(agent, batch, jnp.float32(0.4), settings)

    def q(critic, states, actions):
        return jax.vmap(_ddpg.value, (None, 0, 0))(critic, states, actions)

    following = q(slow.critic, batch.next_state, _ddpg.act(slow.actor, batch.next_state))
    target = 1 - 0.4 + np.array([1, 1, 1, 1, 0, 0]) * following

    def error(critic):
        return jnp.mean((q(critic, batch.state, batch.action) - target) ** 2)

    def climb(actor):
        return jnp.mean(q(after.critic, batch.state, _ddpg.act(actor, batch.state)))

    # Adam's first update is the rate times the sign of the gradient.
    for rate, gradient, old, new in (
        (-1e-2, jax.jit(jax.grad(error))(agent.critic), agent.critic, after.critic),
        (1e-3, jax.jit(jax.grad(climb))(agent.actor), agent.actor, after.actor),
    ):
        leaves = (jax.tree.leaves(tree) for tree in (gradient, old, new))
        for g, was, now in zip(*leaves, strict=True):
            clear = np.abs(g) > 1e-5
            assert clear.any()
            np.testing.assert_allclose(((now - was) / rate)[clear], np.sign(g)[clear], atol=0.02)
    follower = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, slow.actor, after.actor)
    for got, want in zip(jax.tree.leaves(after.slow_actor), jax.tree.leaves(follower), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


def test_the_truncated_normal_is_cut_and_not_clipped():
    points = np.array([_ddpg.truncated_normal(0.9, 0.5, u) for u in np.linspace(0.001, 0.999, 999)])
    assert 0 < points.min() < 0.01
    assert 0.99 < points.max() < 1
    assert np.all(np.diff(points) > 0)
    # Half of it lies below the median of the normal distribution within the cut.
    draws = np.random.default_rng(0).normal(0.9, 0.5, 400_000)
    inside = draws[(draws > 0) & (draws < 1)]
    assert points[499] == pytest.approx(np.median(inside), abs=0.01)
    assert _ddpg.truncated_normal(0.4, 1e-9, 0.5) == pytest.approx(0.4, abs=1e-6)


def test_layer_features():
    features = amc.layer_features([(3, 3, 1, 8), (72, 10), (10,), ()])
    np.testing.assert_allclose(
        features,
        [
            [0, 0.8, 1 / 72, 1, 72 / 720],
            [1 / 3, 1, 1, 1 / 9, 1],
            [2 / 3, 1, 1 / 72, 1 / 9, 10 / 720],
            [1, 0.1, 1 / 72, 1 / 9, 1 / 720],
        ],
        rtol=1e-6,
    )


def test_the_agent_finds_the_layer_that_is_not_needed():
    """Of three layers only the second can be pruned for nothing."""
    shapes = [(10, 10), (20, 20), (10, 10)]

    def accuracy(zeros):
        return 1 - (zeros[0] + zeros[2]) / 200

    zeros = amc.allocate(
        accuracy, shapes, 0.5, episodes=150, exploring=50, most=0.95, seed=1, agent=QUICK
    )
    assert sum(zeros) == 300
    assert zeros[1] >= 280
