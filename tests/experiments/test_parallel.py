"""pmap, a mesh and one device: the same step, and the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from experiments.config import Config
from experiments.models.axis import DEVICE_AXIS
from experiments.parallel import DataParallel, split_largest, use_devices

from .conftest import SHORT, change, exactly


@pytest.fixture(scope="module", params=["mesh", "pmap", "fsdp"])
def mode(request):
    return request.param


@pytest.mark.parametrize("count", [1, 8])
def test_the_mean_over_devices_is_the_mean_of_the_batch(mode, count, devices):
    parallel = DataParallel(mode, devices[:count])

    def step(state, batch):
        return state + jax.lax.pmean(batch.mean(), DEVICE_AXIS)

    state = parallel.replicate(jnp.float32(2.0))
    batch = np.arange(16, dtype=np.float32)
    out = parallel.unreplicate(parallel.wrap(step)(state, parallel.split(batch)))
    assert out == 2.0 + batch.mean()


def test_donation_leaves_the_callers_state_alone(mode, devices):
    parallel = DataParallel(mode, devices[:2])
    mine = {"w": jnp.ones(4)}
    step = parallel.wrap(lambda state, batch: jax.tree.map(lambda x: x + 1, state), donate=True)
    state = parallel.replicate(mine)
    for _ in range(2):
        state = step(state, parallel.split(np.zeros(2)))
    np.testing.assert_array_equal(mine["w"], np.ones(4))
    np.testing.assert_array_equal(parallel.unreplicate(state)["w"], np.full(4, 3.0))


@pytest.mark.slow
@pytest.mark.parametrize("model", [pytest.param("mlp", marks=pytest.mark.slow), "small_cnn"])
def test_a_run_is_the_same_on_one_device_and_on_eight(train, tmp_path, model):
    """BatchNorm's batch is that of all devices, and the zeros are the same."""
    config = change(SHORT, model=model, epochs=1)
    runs = {
        (mode, count): train(tmp_path / f"{mode}{count}", config, devices=count, parallel=mode)
        for mode, count in [("mesh", 1), ("mesh", 8), ("pmap", 8), ("fsdp", 8)]
    }
    expected = runs.pop(("mesh", 1))
    for found in runs.values():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5),
            (found.params, found.statistics),
            (expected.params, expected.statistics),
        )
        assert found.result["penalised"] == pytest.approx(expected.result["penalised"], rel=1e-3)
        assert found.result["eval_accuracy"] == pytest.approx(
            expected.result["eval_accuracy"], abs=1 / 360 + 1e-6
        )


def test_a_batch_that_does_not_divide_is_refused(make_job, tmp_path):
    with pytest.raises(
        ValueError, match=exactly("batch_size must be a multiple of the 8 devices, got 100.")
    ):
        make_job(tmp_path, Config(batch_size=100), devices=8)
    with pytest.raises(
        ValueError, match=exactly("batch_size must be at most the 1437 examples, got 2000.")
    ):
        make_job(tmp_path, Config(batch_size=2000))


def test_more_devices_than_there_are_is_refused(devices):
    assert use_devices(3) == devices[:3]
    with pytest.raises(
        ValueError, match=exactly("devices must be at most the 8 that JAX has here, got 9.")
    ):
        use_devices(9)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), PartitionSpec()),
        ((7, 3), PartitionSpec()),
        ((0, 3), PartitionSpec()),
        ((16,), PartitionSpec(DEVICE_AXIS)),
        ((24, 16), PartitionSpec(DEVICE_AXIS)),
        ((100, 16), PartitionSpec(None, DEVICE_AXIS)),
        ((3, 3, 64, 64), PartitionSpec(None, None, DEVICE_AXIS)),
    ],
)
def test_the_largest_axis_that_divides_is_split(shape, spec):
    assert split_largest(shape, 8) == spec


def test_fsdp_splits_the_state_and_leaves_it_split(devices):
    """Before a step and after it; and it comes back whole."""
    parallel = DataParallel("fsdp", devices)
    mine = {"w": jnp.arange(128.0).reshape(4, 32), "n": jnp.int32(3)}

    def step(state, batch):
        mean = jax.lax.pmean(batch.mean(), DEVICE_AXIS)
        return jax.tree.map(lambda x: x + mean.astype(x.dtype), state)

    state = parallel.replicate(mine)
    for placed in (state, parallel.wrap(step)(state, parallel.split(np.ones(16)))):
        assert {x.data.shape for x in placed["w"].addressable_shards} == {(4, 4)}
        assert placed["n"].is_fully_replicated
    whole = parallel.unreplicate(state)
    assert whole["w"].is_fully_replicated
    np.testing.assert_array_equal(whole["w"], mine["w"])


def test_one_process_has_all_the_rows(mode, devices):
    parallel = DataParallel(mode, devices)
    assert parallel.rows(16) == slice(0, 16)
