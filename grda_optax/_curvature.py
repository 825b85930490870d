r"""Products of a network's curvature with a vector: nothing here forms a matrix.

The Hessian :math:`H = \nabla^2 L(w)` of the training loss has as many rows as the network has
weights. All that is asked of it in this library are products :math:`H u`, each for the price of two
to three gradients (Pearlmutter, *Fast exact multiplication by the Hessian*, 1994). The data may
come in batches, one at a time; on several devices the batches lie on them as in training.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ._checks import PyTree, check_arrays, check_axis_name, check_function
from ._trees import dtype_of
from ._vectors import check_alike, check_vector, widened

Loss = Callable[..., jax.Array]
"""``loss(params, batch)``, or ``loss(params)`` where there are no batches: a scalar."""
Batches = Iterable[PyTree] | Callable[[], Iterable[PyTree]] | None


def hvp(
    loss: Loss,
    params: PyTree,
    vector: PyTree,
    batches: Batches = None,
    *,
    axis_name: Any = None,
) -> PyTree:
    r"""The Hessian of a loss times a vector.

    .. math:: H u = \nabla^2 L(w)\, u = \tfrac{d}{d\varepsilon} \nabla L(w + \varepsilon u)

    with :math:`L` the mean over all examples: every batch counts as often as it has examples. One
    batch is in memory at a time. With the params and the batches as arguments of one compiled
    program for every ``loss``, a second product compiles nothing; so hand over the same function
    again, and no new lambda each time. ``functools.partial(hvp, loss, params, batches=batches)`` is
    the matrix that :func:`top_eigenpairs` and the like take.

    Args:
        loss: ``loss(params, batch)``, the mean over the batch's examples, or ``loss(params)`` if
            ``batches`` is ``None``. It must be twice differentiable.
        params: :math:`w`, a tree of real floating point arrays.
        vector: :math:`u`, a tree like ``params``.
        batches: trees of arrays whose first axis runs over the examples: a sequence, or a function
            without arguments that gives a fresh iterator, as for data that do not fit.
        axis_name: of a mapped axis (``jax.pmap``, ``jax.shard_map``) over which the examples are
            split in equal parts. Under ``jax.jit`` over a mesh nothing needs to be said.

    Returns:
        A tree like ``params``, in float32 or the params' own dtype, whichever is wider.

    Raises:
        ValueError: ``vector`` has another structure or other shapes than ``params``, the params are
            not real floating point, the loss is not a scalar, or there is no batch.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import hvp
        >>> def loss(w):
        ...     return w[0] ** 2 + 3 * w[0] * w[1]  # its Hessian is [[2, 3], [3, 0]]
        >>> hvp(loss, jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]))
        Array([2., 3.], dtype=float32)
    """
    check_function("loss", loss)
    _check("params", params, vector)
    return _mean_product(_hessian_product, (loss,), params, vector, batches, axis_name)


def gauss_newton_vp(
    forward: Callable[[PyTree, PyTree], PyTree],
    loss: Callable[[PyTree, PyTree], jax.Array],
    params: PyTree,
    vector: PyTree,
    batches: Batches = None,
    *,
    axis_name: Any = None,
) -> PyTree:
    r"""The Gauss-Newton matrix of a loss times a vector.

    .. math:: G u = J^\top (\nabla_z^2 \ell)\, J u, \qquad z = f(w), \quad J = \partial f(w)

    It is the Hessian without the curvature of the network itself: never negative where
    :math:`\ell` is convex in the outputs, and the Fisher information of cross entropy and of the
    squared error (Schraudolph, *Fast curvature matrix-vector products*, 2002).

    Args:
        forward: ``forward(params, batch)``, the outputs :math:`z` (logits).
        loss: ``loss(outputs, batch)``, the mean over the batch's examples.
        params: :math:`w`, a tree of real floating point arrays.
        vector: :math:`u`, a tree like ``params``.
        batches: as in :func:`hvp`; with ``None`` both functions are given ``None`` for the batch.
        axis_name: as in :func:`hvp`.

    Returns:
        A tree like ``params``, in float32 or the params' own dtype, whichever is wider.

    Raises:
        ValueError: as :func:`hvp`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import gauss_newton_vp
        >>> def forward(w, x):
        ...     return x * w[0] * w[1]
        >>> def loss(z, x):
        ...     return jnp.mean((z - x) ** 2)
        >>> x = jnp.ones(4)  # at w = (1, 1) nothing is left to fit, so G is the Hessian
        >>> gauss_newton_vp(forward, loss, jnp.ones(2), jnp.array([1.0, 0.0]), [x])
        Array([2., 2.], dtype=float32)
    """
    check_function("forward", forward)
    check_function("loss", loss)
    _check("params", params, vector)
    if batches is None:
        batches = [None]
    return _mean_product(_gauss_newton_product, (forward, loss), params, vector, batches, axis_name)


def value_of(loss: Loss, params: PyTree, batches: Batches = None) -> jax.Array:
    """The loss over all examples, one batch at a time; a scalar."""
    check_function("loss", loss)
    value: jax.Array = _mean(lambda *batch: _value(loss, params, *batch), batches)
    return value


def _check(name: str, params: PyTree, vector: PyTree) -> None:
    check_vector(name, params)
    check_alike("vector", vector, name, params)


def _mean_product(
    product: Any,
    functions: tuple[Any, ...],
    params: PyTree,
    vector: PyTree,
    batches: Batches,
    axis_name: Any,
) -> PyTree:
    check_axis_name(axis_name)
    check_arrays("vector", vector)
    vector = jax.tree.map(lambda u, p: jnp.asarray(u, dtype_of(p)), vector, params)
    mean = _mean(lambda *batch: product(functions, params, vector, *batch), batches)
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)  # type: ignore[no-untyped-call]
    return mean


def _mean(function: Callable[..., PyTree], batches: Batches) -> PyTree:
    """Of the function over batches, each weighted by how many examples it has."""
    if batches is None:
        return function()
    total, examples = None, 0
    made = batches() if callable(batches) else batches
    iterable = isinstance(made, Iterable) and not isinstance(made, str | bytes | Mapping)
    if not iterable or getattr(made, "ndim", 1) == 0:
        raise ValueError(f"batches must be an iterable of batches, got {made!r}.")
    for batch in made:
        for leaf in jax.tree.leaves(batch):
            if not (hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)):
                raise ValueError(f"batches must hold arrays, got {leaf!r}.")
        value, count = function(batch), _examples(batch)
        examples += count
        # A running mean leaves a single batch as it is, and sums nothing that could overflow.
        total = value if total is None else _towards(total, value, count / max(examples, 1))
    if total is None:
        raise ValueError(f"batches must hold at least one batch, got {batches!r}.")
    return total


@jax.jit
def _towards(mean: PyTree, value: PyTree, weight: jax.Array) -> PyTree:
    return jax.tree.map(lambda m, x: m + (x - m) * jnp.asarray(weight, m.dtype), mean, value)


def _examples(batch: PyTree) -> int:
    leaves = jax.tree.leaves(batch)
    return jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 1


def _scalar(value: jax.Array) -> jax.Array:
    if jnp.shape(value) != ():
        raise ValueError(f"loss must return a scalar, got shape {jnp.shape(value)}.")
    return value


@functools.partial(jax.jit, static_argnums=0)
def _value(loss: Loss, params: PyTree, *batch: PyTree) -> jax.Array:
    return _scalar(loss(params, *batch))


def hessian_product(loss: Loss, params: PyTree, vector: PyTree, *batch: PyTree) -> PyTree:
    """Of the loss on one batch, forward over reverse."""
    gradient = jax.grad(lambda w: _scalar(loss(w, *batch)))
    return jax.jvp(gradient, (params,), (vector,))[1]


@functools.partial(jax.jit, static_argnums=0)
def _hessian_product(
    functions: tuple[Loss], params: PyTree, vector: PyTree, *batch: PyTree
) -> PyTree:
    return widened(hessian_product(*functions, params, vector, *batch))


@functools.partial(jax.jit, static_argnums=0)
def _gauss_newton_product(
    functions: tuple[Any, Any], params: PyTree, vector: PyTree, batch: PyTree
) -> PyTree:
    forward, loss = functions
    outputs, moved, back = _linearised(lambda w: forward(w, batch), params, vector)
    gradient = jax.grad(lambda z: _scalar(loss(z, batch)))
    (product,) = back(jax.jvp(gradient, (outputs,), (moved,))[1])
    return widened(product)


def _linearised(function: Any, params: PyTree, vector: PyTree) -> tuple[PyTree, PyTree, Any]:
    """The outputs, where the vector moves them, and the way back."""
    outputs, moved = jax.jvp(function, (params,), (vector,))
    _, back = jax.vjp(function, params)
    return outputs, moved, back
