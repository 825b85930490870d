"""Ways to prune a trained network without training it again: one function each, for `theorem`."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.analysis.trained import Network
from grda_optax import (
    PruningState,
    directional_prune,
    directional_scores,
    hvp,
    obd_saliency,
    obs_prune,
    obs_saliency,
    prune_smallest,
    sequential_directional_prune,
    sparsity_report,
)

PyTree = Any
FISHER_GRADIENTS = 4096  # of OBD: of single examples, of which it keeps the squares alone
Progress = Callable[[PruningState], object]


class Settings(NamedTuple):
    """What the methods of a problem are given; chosen by the training loss on digits."""

    exact: bool
    """The Hessian's own diagonal and inverse, or estimates from samples and from gradients."""
    ridge: float = 1e-4
    cut: float = 1e-3
    products_a_round: int = 80
    round_size: float = 0.05
    """Of the weights left, in the rounds of directional pruning and in those of OBS."""
    damping: float = 1e-3
    gradients: int = 512
    samples: int = 100


class Pruned(NamedTuple):
    """A pruned network, and what it took: passes over the data are counted, not seconds."""

    params: PyTree
    products: int = 0
    gradients: int = 0
    rounds: int = 1


def kernels(params: PyTree) -> PyTree:
    """What is pruned; biases only move."""
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def rounds_between(before: float, after: float, size: float) -> int:
    """How many rounds of a fraction of what is left lie between two sparsities."""
    return max(1, math.ceil(math.log((1 - after) / (1 - before)) / math.log(1 - size) - 1e-9))


def magnitude(network: Network, params: PyTree, sparsity: float, settings: Settings) -> Pruned:
    """The smallest weights go."""
    del network, settings
    return Pruned(prune_smallest(params, jax.tree.map(jnp.abs, params), sparsity, kernels))


def obd(network: Network, params: PyTree, sparsity: float, settings: Settings) -> Pruned:
    """Optimal Brain Damage, in one shot."""
    how: dict[str, Any] = (
        {"method": "exact"}
        if settings.exact
        else {
            "method": "stochastic",
            "num_samples": settings.samples,
            "key": jax.random.key(0),
        }
    )
    saliency = obd_saliency(network.loss, params, [network.train], mask=kernels, **how)
    total = sparsity_report(params, kernels).penalised.total
    products = total if settings.exact else settings.samples
    return Pruned(prune_smallest(params, saliency.values, sparsity, kernels), products)


def obd_fisher(network: Network, params: PyTree, sparsity: float, settings: Settings) -> Pruned:
    """Optimal Brain Damage by the diagonal of the empirical Fisher matrix."""
    del settings
    count = min(FISHER_GRADIENTS, len(jax.tree.leaves(network.train)[0]))
    saliency = obs_saliency(
        network.loss,
        params,
        [network.train],
        inverse="block",
        block_size=1,
        damping=1e-4,
        num_gradients=count,
        mask=kernels,
    )
    return Pruned(prune_smallest(params, saliency.values, sparsity, kernels), 0, count)


def obs(
    network: Network, params: PyTree, sparsity: float, settings: Settings, rounds: bool = False
) -> Pruned:
    """Optimal Brain Surgeon with joint compensation, in one shot or in rounds."""
    before = sparsity_report(params, kernels).penalised.sparsity
    count = rounds_between(before, sparsity, settings.round_size) if rounds else 1
    ratio = (1 - sparsity) / (1 - before)
    done = obs_prune(
        network.loss,
        params,
        [network.train],
        sparsity,
        inverse="exact" if settings.exact else "low_rank",
        damping=settings.damping,
        rounds=count,
        # As many of the weights left in each round.
        schedule=lambda t: (1 - ratio**t) / (1 - ratio),
        num_gradients=settings.gradients,
        mask=kernels,
    )
    return Pruned(done.params, done.products, done.gradients, count)


def directional_once(
    network: Network, params: PyTree, sparsity: float, settings: Settings
) -> Pruned:
    """The closed form, by the scores of the paper; some sparsities are out of its reach."""
    products = 4 * settings.products_a_round
    matvec = functools.partial(hvp, network.loss, params, batches=[network.train])
    scores = directional_scores(params, matvec, mask=kernels, cut=settings.cut, num_iters=products)
    return Pruned(directional_prune(params, scores, sparsity=sparsity, mask=kernels), products)


def directional_rounds(
    network: Network,
    params: PyTree,
    sparsity: float,
    settings: Settings,
    progress: Progress | None = None,
) -> Pruned:
    """Sequential directional pruning."""
    done = sequential_directional_prune(
        network.loss,
        params,
        [network.train],
        sparsity,
        mask=kernels,
        round_size=settings.round_size,
        num_iters=settings.products_a_round,
        ridge=settings.ridge,
        progress=progress,
    )
    return Pruned(done.params, done.products, rounds=done.rounds)


class Method(NamedTuple):
    """How a method is called, and whether it goes on from its own last sparsity."""

    title: str
    run: Callable[..., Pruned]
    goes_on: bool
    """In rounds, from one sparsity to the next; the others start from the dense network."""
    told: bool = False
    """Whether it tells its progress."""


METHODS = {
    "magnitude": Method("magnitude", magnitude, False),
    "obd": Method("OBD, Hessian", obd, False),
    "obd_fisher": Method("OBD, Fisher", obd_fisher, False),
    "obs": Method("OBS, one shot", obs, False),
    "obs_rounds": Method("OBS, rounds", functools.partial(obs, rounds=True), True),
    "directional": Method("directional, one shot", directional_once, False),
    "directional_rounds": Method("directional, rounds", directional_rounds, True, True),
    "directional_fine": Method("directional, finer rounds", directional_rounds, True, True),
}
