"""Iterative pruning: how many trainings, and back to the early moment to the bit."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import lottery
from experiments.methods._allocation import Group
from experiments.methods._masks import fixed, with_masks
from experiments.train import State

from ..grda_optax.trees import assert_same_bits
from .conftest import exactly
from .test_masks import is_positive_zero, kernels, tree

GROUP = Group((0,), 1000, 0.9)


def test_a_fifth_goes_after_each_training_until_the_sparsity():
    plan = lottery.plan(lottery.Settings(rewind_to=0.1), GROUP, 100)
    assert plan.zeros[:3] == [200, 360, 488]
    assert len(plan.zeros) == 11  # 0.8^10 is 0.107, and 0.8^11 less than 0.1
    assert plan.zeros[-1] == 900
    assert (plan.length, plan.rewind) == (100, 10)
    assert plan.ends[:2] == [100, 190]
    assert plan.total == 100 + 11 * 90 == plan.ends[-1] + 90


@pytest.mark.parametrize(("sparsity", "rounds"), [(0.0, 0), (0.2, 1), (0.36, 2), (0.5, 4)])
def test_the_number_of_prunings(sparsity, rounds):
    plan = lottery.plan(lottery.Settings(), Group((0,), 1000, sparsity), 100)
    assert len(plan.zeros) == rounds
    assert plan.zeros[-1:] == [round(1000 * sparsity)] * (rounds > 0)


@pytest.mark.parametrize("steps", [33, 400, 12_345])
def test_an_equal_budget_is_not_exceeded(steps):
    plan = lottery.plan(lottery.Settings(equal_budget=True), GROUP, steps)
    assert steps - (len(plan.zeros) + 1) < plan.total <= steps
    assert plan.zeros[-1] == 900


def test_a_budget_that_is_too_small_is_refused():
    message = "epochs must be enough for 12 trainings, got '5 steps'."
    with pytest.raises(ValueError, match=exactly(message)):
        lottery.plan(lottery.Settings(equal_budget=True), GROUP, 5)


def test_the_schedule_goes_back_with_the_weights():
    plan = lottery.Plan(length=5, rewind=2, zeros=[3, 4])
    steps = [int(plan.step_of_training(n)) for n in range(plan.total)]
    assert steps == [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]


def test_weights_go_back_to_the_early_moment_to_the_bit():
    base = optax.sgd(0.1, momentum=0.9)
    statistics = {"mean": jnp.arange(3.0)}
    tx = lottery.remembering(with_masks(base, fixed, kernels), statistics)
    params = tree()
    state = State(jnp.int32(0), params, statistics, tx.init(params))

    def train(state, steps):
        for _ in range(steps):
            gradient = tree(100 + int(state.step))
            updates, opt_state = tx.update(gradient, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            state = State(state.step + 1, params, {"mean": state.statistics["mean"] + 1}, opt_state)
        return state

    early = lottery.remember(None, train(state, 2))
    late = train(early, 3)
    back = lottery.prune_and_rewind(late, Group((1,), 12, 0.5), 6)
    gone = ~np.asarray(back.opt_state.masks.keep["kernel"])
    smallest = np.sort(np.abs(late.params["kernel"]).ravel())[5]
    np.testing.assert_array_equal(gone, np.abs(late.params["kernel"]) <= smallest)
    wanted = {**early.params, "kernel": jnp.where(gone, 0, early.params["kernel"])}
    assert_same_bits(back.params, wanted)
    assert is_positive_zero(back.params["kernel"][gone]).all()
    assert_same_bits(back.statistics, early.statistics)
    assert_same_bits(back.opt_state.masks.base, early.opt_state.masks.base)
    assert back.step == late.step == 5  # the order of the examples goes on
    # Once more, from the same moment: what is gone stays so.
    again = lottery.prune_and_rewind(train(back, 3), Group((1,), 12, 0.75), 9)
    gone_again = ~np.asarray(again.opt_state.masks.keep["kernel"])
    assert gone_again.sum() == 9
    assert (gone_again | ~gone).all()
    np.testing.assert_array_equal(
        again.params["kernel"], np.where(gone_again, 0, early.params["kernel"])
    )
