"""Sparse matrices of other libraries, from a weight and back: BCOO of JAX, CSR of scipy."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_arrays, is_array_like

if TYPE_CHECKING:
    import scipy.sparse
    from jax.experimental.sparse import BCOO


def to_bcoo(weight: jax.typing.ArrayLike) -> "BCOO":
    """The nonzeros of a matrix with their places, as ``jax.experimental.sparse.BCOO``.

    Args:
        weight: (rows, columns), of any dtype; not traced, since the number of nonzeros is a shape.

    Returns:
        The same matrix of the same dtype, its indices in the order of the rows. ``sparse @ x``
        works under ``jax.jit``; whether it is any faster depends on the device and on how few
        nonzeros there are.

    Raises:
        ValueError: ``weight`` is no matrix, or is traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import to_bcoo
        >>> sparse = to_bcoo(jnp.array([[0.0, 2.0], [0.0, 0.0]]))
        >>> sparse.nse, sparse @ jnp.array([1.0, 3.0])
        (1, Array([6., 0.], dtype=float32))
    """
    from jax.experimental.sparse import BCOO

    array = _matrix(weight)
    places = np.argwhere(array != 0).astype(np.int32)
    values = array[tuple(places.T)]
    return BCOO(
        (jnp.asarray(values), jnp.asarray(places)),
        shape=array.shape,
        indices_sorted=True,
        unique_indices=True,
    )


def from_bcoo(sparse: "BCOO") -> jax.Array:
    """The dense matrix; where a place comes twice, the sum.

    Args:
        sparse: a matrix without batch or dense axes.

    Returns:
        An array of its shape and dtype; what is not stored is ``+0.0``.

    Raises:
        ValueError: ``sparse`` is no such matrix.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import from_bcoo, to_bcoo
        >>> from_bcoo(to_bcoo(jnp.array([[0.0, 2.0]])))
        Array([[0., 2.]], dtype=float32)
    """
    from jax.experimental.sparse import BCOO

    if not isinstance(sparse, BCOO) or sparse.ndim != 2 or sparse.n_sparse != 2:
        raise ValueError(
            f"sparse must be a BCOO matrix without batch or dense axes, got {sparse!r}."
        )
    dense: jax.Array = sparse.todense()
    return dense


def to_csr(weight: jax.typing.ArrayLike) -> "scipy.sparse.csr_array":
    """The nonzeros of a matrix row by row, as ``scipy.sparse.csr_array``.

    Args:
        weight: (rows, columns), of a dtype that numpy has; not traced.

    Returns:
        The same matrix of the same dtype, on the host.

    Raises:
        ValueError: ``weight`` is no matrix, is traced, or is of a dtype that scipy has not, such as
            bfloat16.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import to_csr
        >>> sparse = to_csr(jnp.array([[0.0, 2.0], [0.0, 0.0]]))
        >>> sparse.nnz, sparse.indices.tolist(), sparse.indptr.tolist()
        (1, [1], [0, 1, 1])
    """
    import scipy.sparse

    array = _matrix(weight)
    # Of float16 scipy stores the values, but multiplies none.
    if array.dtype.kind not in "fciub" or array.dtype == np.float16:
        raise ValueError(f"weight must be of a dtype that scipy multiplies, got {array.dtype}.")
    return scipy.sparse.csr_array(array)


def from_csr(sparse: Any) -> jax.Array:
    """The dense matrix; where a place comes twice, the sum.

    Args:
        sparse: a sparse matrix or array of scipy with two axes, in any of its formats.

    Returns:
        An array of its shape and, as far as JAX has it, its dtype; what is not stored is ``+0.0``.

    Raises:
        ValueError: ``sparse`` is no such matrix.

    Examples:
        >>> import jax.numpy as jnp
        >>> from grda_optax import from_csr, to_csr
        >>> from_csr(to_csr(jnp.array([[0.0, 2.0]])))
        Array([[0., 2.]], dtype=float32)
    """
    import scipy.sparse

    if not scipy.sparse.issparse(sparse) or sparse.ndim != 2:
        raise ValueError(f"sparse must be a sparse matrix of scipy, got {sparse!r}.")
    return jnp.asarray(sparse.toarray())


def _matrix(weight: jax.typing.ArrayLike) -> np.ndarray:
    if isinstance(weight, jax.core.Tracer):
        raise ValueError("weight must be an array with values, got a traced one.")
    if not is_array_like(weight):
        raise ValueError(f"weight must be a matrix, got {weight!r}.")
    check_arrays("weight", weight)
    array = np.asarray(weight)
    if array.ndim != 2:
        raise ValueError(f"weight must be a matrix, got shape {array.shape}.")
    return array
