"""From a network with units that are zero to a smaller dense one with the same outputs."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import PyTree, check_arrays, check_function, match_paths, path_name
from ._families import NormFamily
from ._groups import Tied
from ._resolve import families_of


def compact(params: PyTree, ties: Tied | Sequence[Tied]) -> PyTree:
    r"""Cuts out the units that are zero, and what reads them: smaller arrays, the same outputs.

    A unit of which every *member* is zero is cut out of the members and of the followers, along
    their axes. What the members leave has to be zero then, whatever comes in: of a unit with a
    ReLU, GELU or the like its kernel and bias, of one with BatchNorm its scale and bias. A unit
    with a bias of its own gives a constant instead, which :func:`fold_constants` moves on first.
    A unit of a residual stream is one of all layers that are added to it, each a member, and of the
    norms that read it before anything else does. One unit is left where all are zero.

    Cost: on the host, since the shapes depend on the values; so it is not for use inside
    ``jax.jit``.

    Args:
        params: any tree of arrays. Whatever has an entry for each unit belongs in it, also
            BatchNorm's statistics: ``{"params": params, "statistics": statistics}``.
        ties: as in :func:`dual_averaging`, one or a list, each leaf that has the units among its
            members or its followers.

    Returns:
        A tree of the same structure and dtypes; leaves that are not named are the same objects.

    Raises:
        ValueError: ``ties`` are not :class:`Tied`, or do not fit ``params``; or the params are
            traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import Tied, compact
        >>> params = {
        ...     "hidden": {"kernel": jnp.array([[1.0, 0.0, 2.0]]), "bias": jnp.array([3.0, 0, 0])},
        ...     "out": {"kernel": jnp.array([[4.0], [5.0], [6.0]])},
        ... }
        >>> small = compact(params, Tied({"hidden/": -1}, followers={"out/kernel": 0}))
        >>> small["hidden"]["kernel"], small["out"]["kernel"].ravel()
        (Array([[1., 2.]], dtype=float32), Array([4., 6.], dtype=float32))
    """
    several = tuple(ties) if isinstance(ties, list | tuple) else (ties,)
    for tie in several:
        if not isinstance(tie, Tied):
            raise ValueError(f"ties must be Tied, or a list of them, got {tie!r}.")
    _check_values(params)
    leaves, treedef = jax.tree.flatten(params)
    arrays = [np.asarray(leaf) for leaf in leaves]
    # Found in the whole network first: what one cuts is not to change what the next one sees.
    families = [x for x in families_of(several, params) if isinstance(x, NormFamily)]
    found = [(family, _alive(family, arrays)) for family in families]
    for family, alive in found:
        for part in (*family.members, *family.followers):
            (at,) = part.kept
            axis, width = at - 1, part.view[at + 1]
            places = np.arange(part.shape[axis])
            kept = np.flatnonzero(alive[places // width % len(alive)])
            arrays[part.leaf] = np.take(arrays[part.leaf], kept, axis)
    result = [
        leaf if array.shape == np.shape(leaf) else _like(array, leaf)
        for array, leaf in zip(arrays, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, result)


def fold_constants(
    params: PyTree,
    kernel: str,
    bias: str,
    next_kernel: str,
    next_bias: str,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> PyTree:
    r"""Moves what dense units without inputs give on into the next layer's bias.

    A unit whose column of the kernel is zero gives the constant :math:`\phi(b_j)`. With :math:`M`
    the set of them, :math:`b'` and :math:`W'` of the next layer,

    .. math::
        b' \leftarrow b' + \sum_{j \in M} \phi(b_j) W'_j, \qquad
        b_j \leftarrow 0, \quad W'_j \leftarrow 0, \quad j \in M,

    which leaves the outputs as they are, and units that :func:`compact` can cut out. Only for dense
    layers: behind a convolution with padding a constant is none at the border.

    Args:
        params: any tree of arrays.
        kernel: a regular expression that is found in the path of one leaf alone, the kernel
            (inputs, units).
        bias: of that of shape (units,).
        next_kernel: of that of shape (units, outputs).
        next_bias: of that of shape (outputs,).
        activation: :math:`\phi`, entry by entry.

    Returns:
        A tree like ``params``, of the same dtypes, computed in float32 or wider.

    Raises:
        ValueError: a pattern is found in no path or in several, the shapes do not fit each other,
            or the params are traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import fold_constants
        >>> params = {
        ...     "a": {"kernel": jnp.array([[1.0, 0.0]]), "bias": jnp.array([0.0, 2.0])},
        ...     "b": {"kernel": jnp.array([[1.0], [3.0]]), "bias": jnp.array([0.5])},
        ... }
        >>> folded = fold_constants(params, "a/kernel", "a/bias", "b/kernel", "b/bias")
        >>> folded["a"]["bias"], folded["b"]["bias"]
        (Array([0., 0.], dtype=float32), Array([6.5], dtype=float32))
    """
    _check_values(params)
    patterns = {
        "kernel": kernel,
        "bias": bias,
        "next_kernel": next_kernel,
        "next_bias": next_bias,
    }
    check_function("activation", activation)
    at = {name: _only(name, pattern, params) for name, pattern in patterns.items()}
    leaves, treedef = jax.tree.flatten(params)
    shapes = {name: np.shape(leaves[i]) for name, i in at.items()}
    units, outputs = (shapes[name][-1:] for name in ("kernel", "next_kernel"))
    wanted = {
        "kernel": (*shapes["kernel"][:1], *units),
        "bias": units,
        "next_kernel": (*units, *outputs),
        "next_bias": outputs,
    }
    for name, shape in wanted.items():
        if shapes[name] != shape or len(shape) != (2 if "kernel" in name else 1):
            raise ValueError(f"{name} must have the shape {shape}, got {shapes[name]}.")
    first, inner, second, outer = (leaves[i] for i in at.values())
    dtype = jnp.promote_types(jnp.result_type(inner, second, outer), jnp.float32)
    constant = jnp.all(jnp.asarray(first) == 0, axis=0)
    values = activation(jnp.asarray(inner, dtype))
    given = jnp.where(constant, values, jnp.zeros_like(values))
    # On the host, in full precision whatever the device multiplies in.
    moved = np.asarray(given, np.float64) @ np.asarray(second, np.float64)
    leaves[at["next_bias"]] = jnp.asarray(
        np.asarray(outer, np.float64) + moved, jnp.asarray(outer).dtype
    )
    leaves[at["bias"]] = jnp.where(constant, jnp.zeros_like(inner), inner)
    rows = jnp.broadcast_to(constant[:, None], np.shape(second))
    leaves[at["next_kernel"]] = jnp.where(rows, jnp.zeros_like(second), second)
    return jax.tree.unflatten(treedef, leaves)


def _alive(family: NormFamily, arrays: list[np.ndarray]) -> np.ndarray:
    """Which units are not zero; the first where all are, since a layer has to have one."""
    alive = np.zeros(family.sizes.shape, bool)
    for part in family.members:
        alive |= np.asarray(part.any(jnp.asarray(arrays[part.leaf] != 0)))
    if not alive.any():
        alive[0] = True
    return alive


def _like(array: np.ndarray, leaf: object) -> jax.Array | np.ndarray:
    return jnp.asarray(array) if isinstance(leaf, jax.Array) else array


def _check_values(params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if isinstance(leaf, jax.core.Tracer):
            raise ValueError(
                f"params must be arrays with values, got a traced one at {path_name(path)}."
            )
    check_arrays("params", params)


def _only(name: str, pattern: str, params: PyTree) -> int:
    """The number of the one leaf in whose path the pattern is found."""
    found = [i for i, flag in enumerate(match_paths(name, pattern, params)) if flag]
    if len(found) > 1:
        raise ValueError(
            f"{name} must be found in the path of one leaf, got {pattern!r}, which is in that of "
            f"{len(found)}."
        )
    return found[0]
