"""Pruning at a single update."""

from collections.abc import Sequence
from typing import Any

import jax

from experiments.methods._allocation import Group
from experiments.methods._masks import Moment, Rule, magnitudes, without_lowest

PyTree = Any


def prune_once(groups: Sequence[Group], step: int) -> Rule:
    """After update ``step`` the smallest weights of each group go, and stay away."""

    def rule(moment: Moment) -> tuple[PyTree, PyTree]:
        def prune() -> PyTree:
            gone = [group.zeros for group in groups]
            return without_lowest(magnitudes(moment.weights), moment.keep, groups, gone)

        return jax.lax.cond(moment.count == step, prune, lambda: moment.keep), moment.weights

    return rule
