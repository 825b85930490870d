"""Multiplications and additions of a network, counted in its program, without running it."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models import Model


def forward_flops(model: Model, input_shape: tuple[int, ...]) -> int:
    """Two for every product in the kernels, for one example; what else there is counts nothing.

    A convolution is counted at every position of its output as if there were no border.

    Args:
        model: as :func:`experiments.models.build` makes it.
        input_shape: of one example.
    """
    params, statistics = jax.eval_shape(model.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.uint8)

    def logits(params: Any, statistics: Any, inputs: jax.Array) -> jax.Array:
        return model.apply(params, statistics, inputs, False)[0]

    return _count(jax.make_jaxpr(logits)(params, statistics, inputs).jaxpr)


def _count(program: Any) -> int:
    total = 0
    for equation in program.eqns:
        left, right = (
            (x.aval.shape for x in equation.invars) if len(equation.invars) == 2 else ((), ())
        )
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            inner = math.prod(left[axis] for axis in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "conv_general_dilated":
            outputs = right[equation.params["dimension_numbers"].rhs_spec[0]]
            inner = math.prod(right) // outputs
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
        for parameter in equation.params.values():
            inside = getattr(parameter, "jaxpr", parameter)
            if hasattr(inside, "eqns"):
                total += _count(inside)
    return total
