"""Weights that follow from gates, thresholds and noise; and the loop that trains them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import reparameterisation
from experiments.config import Config
from experiments.interventions import Intervention
from experiments.methods import l0, variational_dropout
from experiments.methods import soft_threshold_reparameterisation as learned
from experiments.reparameterisation import Reparameterisation, noise_key
from grda_optax import sparsity_report

from ..grda_optax.trees import assert_same_bits
from .conftest import SHORT, change, exactly
from .test_train import read_metrics, without_clock

KEY = jax.random.key(0)


def kernels(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def small(seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    return {"bias": jnp.ones(5), "kernel": jnp.asarray(scale * random.normal(size=(40, 5)))}


def assert_gradient(function, raw, name):
    """The gradient of one entry of ``raw`` against central differences, in float64."""
    leaf = raw[name]["kernel"]
    gradient = jax.grad(function)(raw)[name]["kernel"]
    direction = jnp.asarray(np.random.default_rng(9).normal(size=leaf.shape))

    def along(t):
        moved = raw | {name: raw[name] | {"kernel": leaf + t * direction}}
        return float(function(moved))

    step = 1e-7
    wanted = (along(step) - along(-step)) / (2 * step)
    assert abs(wanted) > 1e-3
    assert float(jnp.sum(gradient * direction)) == pytest.approx(wanted, rel=1e-5)


# Hard concrete gates.


def test_the_distribution_of_a_gate_is_the_papers(float64):
    """The gate at noise u lies at the quantile u of the stretched concrete distribution."""
    u = np.linspace(0.01, 0.99, 99)
    for log_alpha in (-3.0, -0.5, 0.0, 2.0):
        z = np.asarray(l0.hard_concrete(jnp.float64(log_alpha), jnp.log(u) - jnp.log1p(-u)))
        inside = (z > 0) & (z < 1)
        x = (z[inside] + 0.1) / 1.2
        cdf = 1 / (1 + np.exp(-((np.log(x) - np.log(1 - x)) * 2 / 3 - log_alpha)))
        np.testing.assert_allclose(cdf, u[inside], rtol=1e-10)
        np.testing.assert_array_equal(z, np.sort(z))
        assert z.min() >= 0
        assert z.max() <= 1


def test_the_expected_l0_is_the_mean_number_of_open_gates():
    draws = 20_000
    for i, log_alpha in enumerate((-3.0, -1.0, 0.0, 1.5)):
        noise = jax.random.logistic(jax.random.key(i), (draws,))
        opened = float(jnp.mean(l0.hard_concrete(jnp.float32(log_alpha), noise) != 0))
        wanted = float(l0.probability_open(jnp.float32(log_alpha)))
        assert opened == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / draws) ** 0.5)


@pytest.mark.parametrize("name", ["log_alpha", "params"])
def test_the_gradient_of_gates_is_that_of_finite_differences(float64, name):
    gates = l0.hard_concrete_gates(0.01, 0.5, kernels)
    raw = gates.init(small(), KEY)
    target = small(seed=1)["kernel"]

    def loss(raw):
        fit = jnp.sum((gates.weights(raw, KEY, True)["kernel"] - target) ** 2)
        return fit + gates.penalty(raw, jnp.int32(0))

    assert_gradient(loss, raw, name)


def test_gates_in_evaluation():
    gates = l0.hard_concrete_gates(2.0, 0.2, kernels)
    params = small()
    raw = gates.init(params, KEY)
    assert raw["log_alpha"]["bias"] == optax.MaskedNode()
    log_alpha = raw["log_alpha"]["kernel"]
    assert abs(float(log_alpha.mean()) - np.log(4)) < 0.01
    assert 0.005 < float(log_alpha.std()) < 0.02
    edge = float(np.log(1 / 11))  # there sigma is 1/12
    log_alpha = log_alpha.at[:, 0].set(edge - 0.01).at[:, 1].set(edge + 0.01).at[:, 2].set(9.0)
    raw["log_alpha"]["kernel"] = log_alpha
    weights = gates.weights(raw, KEY, False)
    kernel = np.asarray(weights["kernel"])
    assert not kernel[:, 0].any()
    assert not np.signbit(kernel[:, 0]).any()
    assert kernel[:, 1].all()
    np.testing.assert_array_equal(kernel[:, 2], params["kernel"][:, 2])
    np.testing.assert_array_equal(weights["bias"], params["bias"])
    np.testing.assert_array_equal(gates.weights(raw, jax.random.key(5), False)["kernel"], kernel)
    wanted = 2.0 * float(jnp.sum(1 / (1 + jnp.exp(-(log_alpha + 2 / 3 * np.log(11))))))
    assert float(gates.penalty(raw, jnp.int32(0))) == pytest.approx(wanted, rel=1e-5)


# Learned thresholds.


def test_the_gradient_of_a_learned_threshold_is_its_formula(float64):
    """Every weight that is left contributes -sign(theta), times the slope of the sigmoid."""
    thresholds = learned.learned_thresholds(0.1, -1.0, kernels)
    params, g = small(), small(seed=4)["kernel"]
    raw = thresholds.init(params, KEY)
    raw["s"]["kernel"] = jnp.float64(-0.3)
    height = 1 / (1 + np.exp(0.3))
    theta = np.asarray(params["kernel"])
    left = np.abs(theta) > height
    assert 20 < left.sum() < 180

    def loss(raw):
        fit = jnp.sum(g * thresholds.weights(raw, KEY, True)["kernel"])
        return fit + thresholds.penalty(raw, jnp.int32(0))

    gradient = jax.grad(loss)(raw)
    wanted = -np.sum(np.asarray(g) * np.sign(theta) * left) * height * (1 - height) + 0.1 * -0.3
    assert float(gradient["s"]["kernel"]) == pytest.approx(wanted, rel=1e-10)
    np.testing.assert_allclose(gradient["params"]["kernel"], np.where(left, g, 0))
    kernel = np.asarray(thresholds.weights(raw, KEY, False)["kernel"])
    np.testing.assert_allclose(kernel[left], (theta - height * np.sign(theta))[left])
    assert not kernel[~left].any()
    assert not np.signbit(kernel[~left]).any()


# Variational dropout.


def test_the_divergence_is_the_integral_over_the_noise():
    """-KL = log(alpha)/2 - E log|1 + sqrt(alpha) x| + C, with C such that it ends at zero."""
    end = -(np.euler_gamma + np.log(2)) / 2  # E log|x|
    x, step = np.linspace(-12, 12, 2_000_001, retstep=True)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    for log_alpha in (-6.0, -3.0, -1.0, 0.0, 2.0, 5.0):
        distance = np.abs(1 + np.exp(log_alpha / 2) * (x + step / 3))
        mean = np.sum(density * np.log(distance)) * step
        wanted = mean - end - log_alpha / 2
        got = float(variational_dropout.divergence(jnp.float32(log_alpha)))
        assert got == pytest.approx(wanted, abs=0.02)


def test_weights_of_variational_dropout():
    schedule = optax.linear_schedule(0.0, 0.5, 10)
    noise = variational_dropout.additive_noise(schedule, -2.0, kernels)
    raw = noise.init({"bias": jnp.ones(2), "kernel": jnp.full((2, 20_000), 3.0)}, KEY)
    drawn = noise.weights(raw, KEY, True)
    np.testing.assert_array_equal(drawn["bias"], 1)
    assert float(drawn["kernel"].mean()) == pytest.approx(3, abs=0.01)
    assert float(drawn["kernel"].std()) == pytest.approx(np.exp(-1), rel=0.02)
    assert not np.array_equal(drawn["kernel"], noise.weights(raw, noise_key(0, 1), True)["kernel"])
    # Zero where log sigma^2 - log theta^2 is above 3.
    edge = np.exp((-2 - 3) / 2)
    theta = np.array([[0.99 * edge, 1.01 * edge, -0.99 * edge, -1.01 * edge, 0.0]])
    raw = noise.init({"bias": jnp.ones(2), "kernel": jnp.asarray(theta, jnp.float32)}, KEY)
    kernel = np.asarray(noise.weights(raw, KEY, False)["kernel"])
    np.testing.assert_array_equal(kernel == 0, [[True, False, True, False, True]])
    assert not np.signbit(kernel[kernel == 0]).any()
    log_alpha = np.minimum(-2 - np.log(theta**2 + 1e-16), 8)
    wanted = float(jnp.sum(variational_dropout.divergence(jnp.asarray(log_alpha))))
    for step, part in ((0, 0.0), (5, 0.25), (10, 0.5), (99, 0.5)):
        assert float(noise.penalty(raw, jnp.int32(step))) == pytest.approx(part * wanted, rel=1e-5)


def test_the_gradient_of_variational_dropout_is_that_of_finite_differences(float64):
    noise = variational_dropout.additive_noise(optax.constant_schedule(0.2), -1.0, kernels)
    raw = noise.init(small(), KEY)
    target = small(seed=1)["kernel"]

    def loss(raw):
        fit = jnp.sum((noise.weights(raw, KEY, True)["kernel"] - target) ** 2)
        return fit + noise.penalty(raw, jnp.int32(0))

    for name in ("params", "log_variance"):
        assert_gradient(loss, raw, name)
    raw["params"]["kernel"] = jnp.zeros((40, 5))
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(jax.grad(loss)(raw)))


# The loop.


def identity():
    return Reparameterisation(
        init=lambda params, key: {"params": params},
        weights=lambda raw, key, train: raw["params"],
        penalty=lambda raw, step: jnp.zeros([]),
    )


def test_the_value_is_without_the_penalty_and_the_gradient_with_it():
    doubled = Reparameterisation(
        init=lambda params, key: params,
        weights=lambda raw, key, train: 2 * raw,
        penalty=lambda raw, step: 10.0 * step * raw,
    )
    differentiate = reparameterisation.value_and_grad(
        doubled, lambda w, x: (w * x, "rest"), KEY, jnp.float32(3)
    )
    (value, rest), gradient = differentiate(jnp.float32(5), 7.0)
    assert (float(value), rest, float(gradient)) == (70.0, "rest", 14.0 + 30.0)


def test_keys_depend_on_seed_and_step_alone():
    keys = [(seed, step) for seed in (0, 1) for step in (-1, 0, 1, 2)]
    data = {jax.random.key_data(noise_key(*key)).tobytes() for key in keys}
    assert len(data) == len(keys)
    traced = jax.jit(lambda step: noise_key(1, step))(jnp.int32(2))
    np.testing.assert_array_equal(jax.random.key_data(traced), jax.random.key_data(noise_key(1, 2)))


def test_every_part_has_its_optimizer():
    tx = reparameterisation.train_parts(optax.sgd(1.0), gates=optax.sgd(10.0))
    raw = {
        "params": {"a": jnp.ones(2), "b": jnp.ones(2)},
        "gates": {"a": jnp.ones(2), "b": optax.MaskedNode()},
    }
    updates, _ = tx.update(raw, tx.init(raw), raw)
    np.testing.assert_array_equal(updates["params"]["b"], -1)
    np.testing.assert_array_equal(updates["gates"]["a"], -10)
    assert updates["gates"]["b"] == optax.MaskedNode()


@pytest.mark.slow
def test_reparameterised_by_the_identity_nothing_changes(make_job, train, tmp_path):
    config = change(SHORT, method=("dense",), epochs=1)
    plain = train(tmp_path / "plain", config)
    job = make_job(tmp_path / "identity", config)
    tx = reparameterisation.train_parts(job.base_optimizer())
    same = job.train(tx, reparameterisation=identity())
    np.testing.assert_allclose(
        [row["loss"] for row in same.rows], [row["loss"] for row in plain.rows], rtol=1e-6
    )
    assert same.result["eval_accuracy"] == plain.result["eval_accuracy"]


def test_interventions_are_refused_beside_a_reparameterisation(make_job, tmp_path):
    """They change the params, which follow from the raw values."""
    job = make_job(tmp_path / "run")
    message = "interventions must be none where there is a reparameterisation, got 1."
    with pytest.raises(ValueError, match=exactly(message)):
        job.train(
            optax.sgd(0.1),
            interventions=[Intervention(0, lambda job, state: state)],
            reparameterisation=identity(),
        )
    assert not (tmp_path / "run").exists()


# Gates that close within the 33 steps of a short run.
QUICK = change(SHORT, method=("l0",), l0=l0.Settings(strength=1.0, gate_learning_rate=0.3))


@pytest.mark.slow
def test_resuming_changes_no_bit(train, tmp_path):
    """The noise of a step is the same after a stop."""
    whole = train(tmp_path / "whole", QUICK)
    assert train(tmp_path / "parts", QUICK, stop_after=20).result is None
    resumed = train(tmp_path / "parts", QUICK)
    assert_same_bits(resumed.params, whole.params)
    rows = without_clock(read_metrics(tmp_path / "parts"))
    assert rows == without_clock(read_metrics(tmp_path / "whole"))
    # What is returned, scored and counted is the network of the evaluation gates.
    assert 0.01 < rows[-1]["sparsity_penalised"] < 0.99
    counts = sparsity_report(whole.params, kernels).penalised
    assert rows[-1]["sparsity_penalised"] == counts.sparsity
    assert whole.result["penalised"] == {"nnz": counts.nnz, "total": counts.total}
    kernel = whole.params["dense1"]["kernel"]
    assert not np.signbit(kernel[kernel == 0]).any()


@pytest.mark.slow
def test_devices_draw_alike_and_another_run_can_start_from_the_weights(train, tmp_path):
    runs = [
        train(tmp_path / f"{devices}{mode}", QUICK, devices=devices, parallel=mode)
        for devices, mode in ((1, "mesh"), (2, "mesh"), (2, "pmap"))
    ]
    losses = [[row["loss"] for row in run.rows[:5]] for run in runs]
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-4)
    folder = str(tmp_path / "1mesh")
    config = change(SHORT, method=("dense",), epochs=1, init_from=folder)
    following = train(tmp_path / "next", config, stop_after=1)
    assert following.rows[0]["loss"] < 0.5 * runs[0].rows[0]["loss"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Config(l0=l0.Settings(drop_rate=1.0)),
            "l0.drop_rate must be above 0 and below 1, got 1.0.",
        ),
        (
            lambda: Config(soft_threshold_reparameterisation=learned.Settings(start=0.0)),
            "soft_threshold_reparameterisation.start must be below 0, got 0.0.",
        ),
        (
            lambda: Config(variational_dropout=variational_dropout.Settings(warm_up=1.5)),
            "variational_dropout.warm_up must be at most 1, got 1.5.",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make()
