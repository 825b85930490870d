"""Products with the curvature equal the matrix, whatever way the data come."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grda_optax import gauss_newton_vp, hvp

from . import small_mlp


def random_like(params, seed=7):
    flat, unravel = ravel_pytree(params)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=flat.size), flat.dtype))


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def split(batch, *at):
    bounds = [0, *at, len(batch[1])]
    return [jax.tree.map(lambda x, a=a, b=b: x[a:b], batch) for a, b in itertools.pairwise(bounds)]


@pytest.mark.usefixtures("float64")
def test_the_product_is_that_of_the_matrix():
    params, batch = small_mlp.problem()
    vector = random_like(params)
    expected = small_mlp.hessian(params, batch) @ flat(vector)
    found = hvp(small_mlp.loss, params, vector, [batch])
    assert jax.tree.structure(found) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_float32_is_right_there():
    params, batch = small_mlp.problem()
    vector = random_like(params)
    expected = small_mlp.hessian(params, batch).astype(float) @ flat(vector)
    found = hvp(small_mlp.loss, params, vector, [batch])
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-5)


def test_without_batches_the_loss_is_called_with_the_params_alone():
    found = hvp(lambda w: jnp.sum(w**3), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(found, [6.0, 12.0])


@pytest.mark.usefixtures("float64")
def test_every_example_counts_once_in_uneven_batches():
    params, batch = small_mlp.problem()
    vector = random_like(params)
    whole = hvp(small_mlp.loss, params, vector, [batch])
    parts = split(batch, 5, 6)
    for batches in (parts, tuple(parts), lambda: iter(parts)):
        found = hvp(small_mlp.loss, params, vector, batches)
        np.testing.assert_allclose(flat(found), flat(whole), rtol=0, atol=1e-13)


def test_one_batch_is_held_at_a_time():
    params, batch = small_mlp.problem()
    held = []

    def batches():
        for part in split(batch, 3, 6, 9):
            held.append(part)
            assert len(held) == 1
            yield part
            held.pop()

    hvp(small_mlp.loss, params, random_like(params), batches)


def test_a_second_product_compiles_nothing():
    params, batch = small_mlp.problem()
    calls = []

    def loss(params, batch):
        calls.append(1)
        return small_mlp.loss(params, batch)

    matvec = functools.partial(hvp, loss, params, batches=[batch])
    matvec(random_like(params))
    traced = len(calls)
    matvec(random_like(params, seed=8))
    assert len(calls) == traced


def test_inside_a_jitted_function():
    params, batch = small_mlp.problem()
    vector = random_like(params)
    inside = jax.jit(lambda w, u, b: hvp(small_mlp.loss, w, u, [b]))(params, vector, batch)
    outside = hvp(small_mlp.loss, params, vector, [batch])
    np.testing.assert_allclose(flat(inside), flat(outside), rtol=0, atol=1e-6)


def test_low_precision_params_give_wide_products():
    params, batch = small_mlp.problem()
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    found = hvp(small_mlp.loss, low, jax.tree.map(jnp.ones_like, low), [batch])
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("product", ["hessian", "gauss_newton"])
def test_over_devices(devices, product):
    """Split by pmap, by shard_map and by jit over a mesh: the product of one device."""
    params, batch = small_mlp.problem(examples=16)
    vector = random_like(params)

    def apply(params, vector, batch, axis_name=None):
        if product == "hessian":
            return hvp(small_mlp.loss, params, vector, [batch], axis_name=axis_name)
        return gauss_newton_vp(
            small_mlp.forward,
            small_mlp.cross_entropy,
            params,
            vector,
            [batch],
            axis_name=axis_name,
        )

    one = flat(apply(params, vector, batch))
    by_axis = functools.partial(apply, axis_name="d")
    parts = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), batch)
    mapped = jax.pmap(by_axis, axis_name="d", in_axes=(None, None, 0), devices=devices)
    found = jax.tree.map(lambda x: x[0], mapped(params, vector, parts))
    np.testing.assert_allclose(flat(found), one, rtol=0, atol=1e-6)

    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,), devices=devices)
    sharded = jax.shard_map(
        by_axis,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec("d")),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    found = jax.jit(sharded)(params, vector, batch)
    np.testing.assert_allclose(flat(found), one, rtol=0, atol=1e-6)

    placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("d")))
    copied = jax.device_put((params, vector), NamedSharding(mesh, PartitionSpec()))
    np.testing.assert_allclose(flat(apply(*copied, placed)), one, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_gauss_newton_is_the_matrix_without_the_networks_own_curvature():
    params, batch = small_mlp.problem()
    weights, unravel = ravel_pytree(params)
    vector = random_like(params)

    def outputs(w):
        return small_mlp.forward(unravel(w), batch).ravel()

    def of_outputs(z):
        return small_mlp.cross_entropy(z.reshape(len(batch[1]), -1), batch)

    jacobian = np.asarray(jax.jacobian(outputs)(weights))
    inner = np.asarray(jax.hessian(of_outputs)(outputs(weights)))
    matrix = jacobian.T @ inner @ jacobian
    found = gauss_newton_vp(
        small_mlp.forward, small_mlp.cross_entropy, params, vector, split(batch, 5)
    )
    np.testing.assert_allclose(flat(found), matrix @ flat(vector), rtol=0, atol=1e-12)
    assert (
        np.linalg.eigvalsh(matrix).min()
        > -1e-12
        > np.linalg.eigvalsh(small_mlp.hessian(params, batch)).min()
    )


def exactly(message):
    return f"^{re.escape(message)}$"


def test_errors():
    params, batch = small_mlp.problem()
    vector = random_like(params)
    with pytest.raises(ValueError, match=r"^loss must return a scalar, got shape \(12, 3\)\."):
        hvp(small_mlp.forward, params, vector, [batch])
    with pytest.raises(ValueError, match=r"^vector must have the structure of params, PyTreeDef"):
        hvp(small_mlp.loss, params, vector[:1], [batch])
    message = "vector must have the shapes of params, (5, 4) at 0/kernel, got ()."
    wrong = [{**vector[0], "kernel": jnp.zeros(())}, vector[1]]
    with pytest.raises(ValueError, match=exactly(message)):
        hvp(small_mlp.loss, params, wrong, [batch])
    message = "batches must hold at least one batch, got []."
    with pytest.raises(ValueError, match=exactly(message)):
        hvp(small_mlp.loss, params, vector, [])
    message = "params must be real floating point, got int32 at params."
    with pytest.raises(ValueError, match=exactly(message)):
        hvp(jnp.sum, jnp.arange(3), jnp.arange(3))
