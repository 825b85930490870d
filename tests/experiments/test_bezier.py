"""The curve between two networks: its ends, its bend's gradient, and the plane around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.analysis import bezier
from experiments.analysis.connectivity import scan
from experiments.analysis.connectivity_report import barrier
from experiments.analysis.landscape import Landscape, Scores

from .conftest import SHORT, change, exactly


def tree(*values):
    return {"a": np.array(values[:2], np.float32), "b": {"c": np.array([values[2:]], np.float32)}}


FIRST, BEND, LAST = tree(1.0, 2.0, 3.0), tree(-4.0, 0.5, 7.0), tree(0.0, -2.0, 5.0)


def test_the_ends_are_the_two_solutions():
    for t, end in ((0.0, FIRST), (1.0, LAST)):
        for place in (bezier.point(FIRST, BEND, LAST, t), bezier.straight(FIRST, LAST, t)):
            jax.tree.map(np.testing.assert_array_equal, place, end)


def test_the_middle_by_hand():
    """A quarter of each end and half of the bend; on the line the mean of both."""
    middle = bezier.point(FIRST, BEND, LAST, 0.5)
    np.testing.assert_allclose(middle["a"], [-1.75, 0.25])
    np.testing.assert_allclose(middle["b"]["c"], [[5.5]])
    np.testing.assert_allclose(bezier.straight(FIRST, LAST, 0.5)["a"], [0.5, 0.0])


def test_with_its_bend_on_the_line_the_curve_is_the_line():
    bend = bezier.straight(FIRST, LAST, 0.5)
    for t in (0.1, 0.4, 0.9):
        on_curve, on_line = bezier.point(FIRST, bend, LAST, t), bezier.straight(FIRST, LAST, t)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), on_curve, on_line)


def test_the_gradient_of_the_bend_is_that_of_the_weights_times_2_t_1_minus_t():
    def loss(w):
        return jnp.sum(jnp.sin(w["a"])) + jnp.sum(w["b"]["c"] ** 3)

    t = 0.3
    gradient = jax.grad(lambda bend: loss(bezier.on_the_curve(bend, (FIRST, LAST), t)))(BEND)
    at_the_point = jax.grad(loss)(bezier.point(FIRST, BEND, LAST, t))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, 2 * t * (1 - t) * y, rtol=1e-5),
        gradient,
        at_the_point,
    )


def test_the_plane_holds_its_three_points():
    plane = bezier.Plane(FIRST, LAST, BEND)
    for (x, y), network in (((0, 0), FIRST), ((plane.length, 0), LAST), (plane.third, BEND)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plane.at(x, y), network
        )
    squares = sum(float(np.sum((a - b) ** 2)) for a, b in zip(*map(
        jax.tree.leaves, (plane.at(3, 4), plane.at(0, 0))), strict=True))  # fmt: skip
    assert squares == pytest.approx(25, rel=1e-5)  # the coordinates are distances


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((FIRST, FIRST, BEND), "the second network must be apart from the first, got 0.0."),
        (
            (tree(0.0, 0.0, 0.0), tree(4.0, 0.0, 0.0), tree(1.0, 0.0, 0.0)),
            "the third network must be beside the line through the others, got 0.0.",
        ),
    ],
)
def test_three_points_on_a_line_make_no_plane(points, message):
    with pytest.raises(ValueError, match=exactly(message)):
        bezier.Plane(*points)


def test_the_grid_of_a_plane_reaches_beyond_its_points():
    class Distance:
        """The distance from the first network for a loss."""

        def at(self, params):
            pairs = zip(jax.tree.leaves(params), jax.tree.leaves(FIRST), strict=True)
            square = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
            return Scores(square**0.5, 0.0, 0.0, 40.0)

    plane, calls = bezier.Plane(FIRST, LAST, BEND), []
    found = scan(plane, Distance(), 4, lambda: calls.append(1))
    assert len(calls) == 16
    for i, along in ((0, found["x"]), (1, found["y"])):
        corners = [0.0, (plane.length, 0.0)[i], plane.third[i]]
        assert along[0] < min(corners)
        assert along[-1] > max(corners)
    for i, y in enumerate(found["y"]):
        for j, x in enumerate(found["x"]):
            assert found["train_loss"][i][j] == pytest.approx(np.hypot(x, y), abs=1e-3)
            assert found["test_error"][i][j] == 60


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0."),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number >= 0, got -1.0."),
        ({"momentum": 1.0}, "momentum must be below 1, got 1.0."),
    ],
)
def test_a_training_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=exactly(message)):
        bezier.Training(**fields)


def test_the_barrier_is_over_the_worse_end():
    way = [{"train_loss": x} for x in (0.1, 0.5, 0.45, 0.3)]
    assert barrier(way) == pytest.approx(0.2)
    assert barrier(way[::3]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "small_cnn_sixteenth"])
def test_a_bend_that_is_trained_lowers_the_loss_of_the_curve(make_job, tmp_path, model):
    """Between two networks that have learned nothing yet; the ends stay as they are."""
    job = make_job(tmp_path, change(SHORT, model=model))
    first, last = (job.model.init(jax.random.key(seed))[0] for seed in (0, 1))
    middle = bezier.straight(first, last, 0.5)
    bend = bezier.train(
        job, middle, (first, last), bezier.on_the_curve, bezier.Training(6, 0.1, 0.9)
    )
    landscape = Landscape(job, examples=200)
    before, after = (
        landscape.at(bezier.point(first, x, last, 0.5)).train_loss for x in (middle, bend)
    )
    assert after < 0.9 * before
    jax.tree.map(np.testing.assert_array_equal, first, job.model.init(jax.random.key(0))[0])


@pytest.mark.slow
def test_statistics_are_those_of_the_place(make_job, tmp_path):
    """Of a network whose first convolution is twice as large, BatchNorm sees twice the mean."""
    job = make_job(tmp_path, change(SHORT, model="small_cnn_sixteenth"))
    params, _ = job.model.init(jax.random.key(0))
    landscape = Landscape(job, examples=200)
    once = landscape.statistics(params)["norm1"]["mean"]
    double = {"conv1": {"kernel": 2 * params["conv1"]["kernel"]}}
    np.testing.assert_allclose(
        landscape.statistics(params | double)["norm1"]["mean"], 2 * once, rtol=1e-4, atol=1e-6
    )
    # After BatchNorm nothing is left of the factor, but for the epsilon in its variance.
    assert landscape.at(params | double).train_loss == pytest.approx(
        landscape.at(params).train_loss, rel=1e-3
    )
