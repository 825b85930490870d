"""Bad input is refused at once, by a message that names the argument and the value it got."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grda_optax import (
    dual_averaging,
    firm,
    firm_threshold,
    grda,
    hard_threshold,
    mask_overlap,
    power_threshold,
    prune_with,
    soft_threshold,
    sparsity,
    sparsity_report,
    suggest_c,
    target_sparsity,
)

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}


def raises(message):
    """A ValueError with this message, whole."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


NUMBERS = {  # argument: its range in words, and values outside it
    "learning_rate": ("a finite number >= 0", [-0.1, -1, float("nan"), float("inf")]),
    "c": ("a finite number >= 0", [-1e-9, -2, float("nan"), float("inf"), np.float32(-1)]),
    "mu": ("a finite number > 0 and <= 1", [0, 0.0, -0.5, 1.01, 2, float("nan"), -float("inf")]),
    "momentum": ("a finite number >= 0 and < 1", [-0.1, 1, 1.0, 1.5, float("nan"), float("inf")]),
    "weight_decay": ("a finite number >= 0", [-1e-4, float("nan"), float("inf")]),
}
CASES = [(name, wanted, value) for name, (wanted, bad) in NUMBERS.items() for value in bad]


@pytest.mark.parametrize(("name", "wanted", "value"), CASES)
def test_numbers_of_grda(name, wanted, value):
    message = f"{name} must be {wanted}, got {float(value):g}."
    with raises(message):
        grda(**{"learning_rate": 0.1, name: value})
    if name in ("learning_rate", "c", "mu"):
        with raises(message):
            power_threshold(**{"learning_rate": 0.1, name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, "0.1", 1j, np.True_, [0.1]])
def test_what_is_no_number(name, value):
    with raises(f"{name} must be a real number, got {value!r}."):
        grda(**{"learning_rate": 0.1, name: value})


def test_none_is_no_number():
    for name in ("learning_rate", "c", "mu", "weight_decay"):
        with raises(f"{name} must be a real number, got None."):
            grda(**{"learning_rate": 0.1, name: None})


def test_a_schedule_is_only_for_the_learning_rate():
    schedule = optax.constant_schedule(0.1)
    for name in ("c", "mu", "momentum", "weight_decay"):
        with raises(f"{name} must be a real number, got {schedule!r}."):
            grda(**{"learning_rate": 0.1, name: schedule})


@pytest.mark.parametrize(("name", "value"), [("c", 1.5), ("mu", 1.5), ("learning_rate", 2.0)])
def test_traced_numbers_are_not_looked_at(name, value):
    """They have no value to look at yet; the mu here, over 1, is computed with."""

    @jax.jit
    def threshold(value):
        tx = grda(**{"learning_rate": 0.1, name: value})
        _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        return optax.tree.get(state, "threshold")

    numbers = {"learning_rate": 0.1, "c": 0.005, "mu": 0.51} | {name: value}
    rate, c, mu = (numbers[key] for key in ("learning_rate", "c", "mu"))
    np.testing.assert_allclose(threshold(value), c * rate ** (0.5 + mu), rtol=1e-5)


def test_the_ends_of_the_ranges_are_legal():
    for options in (
        {"learning_rate": 0.0},
        {"learning_rate": 1, "c": 0, "mu": 1, "momentum": 0, "weight_decay": 0},
        {"learning_rate": np.float32(0.1), "c": np.float64(0.1), "mu": 1e-3, "momentum": 0.999},
    ):
        grda(**options)


def test_nesterov_needs_momentum():
    with raises("momentum must be given when nesterov is True, got None."):
        grda(0.1, nesterov=True)


@pytest.mark.parametrize("prox", ["hrad", "", None, 1.0, ["soft"]])
def test_prox(prox):
    message = f"prox must be a function or one of 'firm', 'hard', 'soft', got {prox!r}."
    with raises(message):
        dual_averaging(0.1, prox=prox)
    with raises(message):
        prune_with(optax.sgd(0.1), 0.5, 10, prox=prox)


@pytest.mark.parametrize("ratio", [1, 1.0, 0.5, -3, float("nan"), float("inf")])
def test_ratio(ratio):
    for use in (
        lambda: firm_threshold(jnp.ones(2), 0.1, ratio),
        lambda: firm(ratio),
        lambda: prune_with(optax.sgd(0.1), 0.5, 10, ratio=ratio),
    ):
        with raises(f"ratio must be a finite number > 1, got {ratio:g}."):
            use()


@pytest.mark.parametrize("leak", [-1e-3, 1.5, float("nan")])
def test_leak(leak):
    with raises(f"leak must be a finite number >= 0 and <= 1, got {leak:g}."):
        dual_averaging(0.1, leak=leak)
    with raises("leak must be a real number, got '0.1'."):
        dual_averaging(0.1, leak="0.1")


TARGET = {  # argument of target_sparsity: what it must be, and values that are not
    "sparsity": ("a finite number >= 0 and < 1", [-0.1, 1, 1.0, 90, float("nan")]),
    "begin_step": ("a finite number >= 0", [-1]),
    "end_step": ("a finite number >= 0", [-1]),
    "exponent": ("a finite number > 0", [0, -3.0, float("inf")]),
    "update_every": ("a finite number >= 1", [0, -10]),
}


@pytest.mark.parametrize(
    ("name", "wanted", "value"), [(k, w, v) for k, (w, bad) in TARGET.items() for v in bad]
)
def test_target_sparsity(name, wanted, value):
    message = f"{name} must be {wanted}, got {value:g}."
    with raises(message):
        target_sparsity(**{"sparsity": 0.9, name: value})
    if name in ("sparsity", "update_every"):
        with raises(message):
            prune_with(optax.sgd(0.1), **{"sparsity": 0.9, "total_steps": 10, name: value})


def test_target_sparsity_of_wrong_types():
    for name in ("begin_step", "end_step", "update_every"):
        with raises(f"{name} must be an integer, got 2.5."):
            target_sparsity(0.9, **{name: 2.5})
    with raises("end_step must be a finite number >= 10, got 9."):
        target_sparsity(0.9, begin_step=10, end_step=9)
    for value in (1, None, "leaf"):
        with raises(f"per_leaf must be a bool, got {value!r}."):
            target_sparsity(0.9, per_leaf=value)
    for value in ("0.9", None, True):
        with raises(f"sparsity must be a real number, got {value!r}."):
            target_sparsity(value)


def test_a_schedule_of_sparsities_has_no_ramp():
    schedule = optax.constant_schedule(0.5)
    with raises("begin_step must be 0 when sparsity is a schedule, got 5."):
        target_sparsity(schedule, begin_step=5)
    with raises("end_step must be None when sparsity is a schedule, got 5."):
        target_sparsity(schedule, end_step=5)
    with raises(f"sparsity must be a real number, got {schedule!r}."):
        prune_with(optax.sgd(0.1), schedule, 10)


@pytest.mark.parametrize("base", [None, 0.1, optax.sgd, (lambda p: p, lambda u, s, p: (u, s))])
def test_base_optimizer(base):
    with raises(f"base_optimizer must be an optax.GradientTransformation, got {base!r}."):
        prune_with(base, 0.9, 100)


def test_steps_of_the_recipe():
    for value in (0, -1):
        with raises(f"total_steps must be a finite number >= 1, got {value}."):
            prune_with(optax.sgd(0.1), 0.9, value)
    with raises("total_steps must be an integer, got 100.0."):
        prune_with(optax.sgd(0.1), 0.9, 100.0)
    for value in (-0.1, 1.1):
        with raises(f"ramp_end must be a finite number >= 0 and <= 1, got {value}."):
            prune_with(optax.sgd(0.1), 0.9, 100, ramp_end=value)
    for value in (0.4, 1.1):
        with raises(f"freeze_at must be a finite number >= 0.5 and <= 1, got {value}."):
            prune_with(optax.sgd(0.1), 0.9, 100, ramp_end=0.5, freeze_at=value)


def test_suggest_c():
    good = {"params": PARAMS, "learning_rate": 0.1, "mu": 0.6, "steps": 10, "sparsity": 0.5}
    for name, value, wanted in (
        ("learning_rate", -0.1, "a finite number >= 0"),
        ("mu", 0, "a finite number > 0 and <= 1"),
        ("steps", 0, "a finite number >= 1"),
        ("sparsity", 1, "a finite number >= 0 and < 1"),
    ):
        with raises(f"{name} must be {wanted}, got {value:g}."):
            suggest_c(**good | {name: value})
    with raises("params must have weights that are penalised, got none."):
        suggest_c(**good, mask=False)
    for rate, ends in ((0.0, "0 to 0"), (lambda n: 0.5 - n, "-8.5 to 0.5")):
        with raises(
            "learning_rate must be positive at one step and negative at none, got values from "
            f"{ends}."
        ):
            suggest_c(**good | {"learning_rate": rate})


@pytest.mark.parametrize("pattern", ["(", "*kernel", "[a-"])
def test_bad_regular_expressions(pattern):
    try:
        re.compile(pattern)
    except re.error as error:
        ending = f"must be a valid regular expression, got {pattern!r}: {error}."
    with raises(f"mask {ending}"):
        dual_averaging(0.1, mask=pattern)
    with raises(f"mask {ending}"):
        sparsity(PARAMS, mask=pattern)
    with raises(f"scale {ending}"):
        dual_averaging(0.1, scale={"kernel": 2.0, pattern: 1.0})


def test_patterns_that_are_found_nowhere():
    ending = "must be found in the path of a leaf, got 'embed' for bias, kernel."
    with raises(f"mask {ending}"):
        dual_averaging(0.1, mask="embed").init(PARAMS)
    with raises(f"scale {ending}"):
        dual_averaging(0.1, scale={"kernel": 2.0, "embed": 1.0}).init(PARAMS)


def test_scale():
    for value in (0, -1.0, float("inf")):
        with raises(f"scale at kernel must be a finite number > 0, got {value:g}."):
            dual_averaging(0.1, scale={"kernel": value})
    for value in ("2", optax.sgd):
        with raises(f"scale must hold numbers, got {value!r} at kernel."):
            dual_averaging(0.1, scale={"kernel": value})
    with raises("scale at params must be a real number, got True."):
        dual_averaging(0.1, scale=True)
    scale = [2.0, 1.0]
    with raises(
        "scale must be a dict from patterns to numbers, or have the structure of params or a "
        f"prefix of it, got {jax.tree.structure(scale)} for params {jax.tree.structure(PARAMS)}."
    ):
        dual_averaging(0.1, scale=scale).init(PARAMS)


@pytest.mark.parametrize("threshold", [None, "soft", (0.1, 0.2), [0.1], {"h": 0.1}, optax.sgd(0.1)])
def test_threshold_of_a_wrong_type(threshold):
    with raises(
        f"threshold must be a ThresholdRule, an optax.Schedule or a number, got {threshold!r}."
    ):
        dual_averaging(threshold)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_threshold_out_of_range(threshold):
    message = f"threshold must be a finite number >= 0, got {threshold:g}."
    with raises(message):
        dual_averaging(threshold)
    for operator in OPERATORS:
        with raises(message):
            operator(jnp.ones(2), threshold)


@pytest.mark.parametrize("threshold", [True, 1j])
def test_threshold_that_is_no_number(threshold):
    with raises(f"threshold must be a real number, got {threshold!r}."):
        dual_averaging(threshold)


@pytest.mark.parametrize(
    ("freeze_step", "message"),
    [
        (-1, "freeze_step must be a finite number >= 0, got -1."),
        (2.5, "freeze_step must be an integer, got 2.5."),
        (float("nan"), "freeze_step must be an integer, got nan."),
        (True, "freeze_step must be a real number, got True."),
        ("10", "freeze_step must be a real number, got '10'."),
    ],
)
def test_freeze_step(freeze_step, message):
    with raises(message):
        dual_averaging(0.1, freeze_step=freeze_step)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "float16", int, bool, complex, "wide"])
def test_accumulator_dtype(dtype):
    message = f"accumulator_dtype must be None, float32 or float64, got {dtype!r}."
    with raises(message):
        dual_averaging(0.1, accumulator_dtype=dtype)
    with raises(message):
        grda(0.1, accumulator_dtype=dtype)


@pytest.mark.parametrize(
    "tx",
    [
        grda(0.1),
        grda(0.1, weight_decay=0.1),
        grda(0.1, mask=False),
        dual_averaging(0.1),
        optax.chain(optax.sgd(0.1), dual_averaging(0.1)),
    ],
    ids=["grda", "weight_decay", "masked", "dual_averaging", "chain"],
)
def test_update_without_params(tx):
    with raises("params must be given: call update(updates, state, params)."):
        tx.update(PARAMS, tx.init(PARAMS))


OTHER_STRUCTURES = [{"kernel": jnp.ones((3, 2))}, [jnp.ones((3, 2)), jnp.ones(2)], jnp.ones(2)]


@pytest.mark.parametrize("other", OTHER_STRUCTURES)
@pytest.mark.parametrize("mask", [None, {"kernel": True, "bias": False}])
def test_another_structure_than_at_init(other, mask):
    tx = dual_averaging(0.1, mask=mask)
    state, seen = tx.init(PARAMS), jax.tree.structure(PARAMS)
    got = jax.tree.structure(other)
    with raises(f"params must have the structure of the params at init, {seen}, got {got}."):
        tx.update(other, state, other)
    with raises(f"updates must have the structure of the params at init, {seen}, got {got}."):
        tx.update(other, state, PARAMS)
    with raises(f"params must have the structure of the params at init, {seen}, got {got}."):
        tx.update(PARAMS, state, other)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (), (3, 2, 1)])
def test_another_shape_than_at_init(shape):
    tx, other = dual_averaging(0.1), PARAMS | {"kernel": jnp.ones(shape)}
    state = tx.init(PARAMS)
    for name, updates, params in (("params", PARAMS, other), ("updates", other, PARAMS)):
        with raises(
            f"{name} must have the shapes of the params at init, (3, 2) at kernel, got {shape}."
        ):
            tx.update(updates, state, params)


def test_another_shape_of_a_tree_that_is_one_array():
    tx = dual_averaging(0.1)
    with raises("params must have the shapes of the params at init, (2,) at params, got (3,)."):
        tx.update(jnp.ones(3), tx.init(jnp.ones(2)), jnp.ones(3))


def test_another_tree_than_at_init_in_grda():
    """Which hands the tree to its momentum first."""
    tx = grda(0.1)
    state = tx.init(PARAMS)
    other = PARAMS | {"bias": jnp.ones(3)}
    with raises("params must have the shapes of the params at init, (2,) at bias, got (3,)."):
        tx.update(other, state, other)


NOT_REAL = [jnp.arange(3), jnp.array([True, False]), jnp.ones(2, jnp.complex64), np.uint8([1])]


@pytest.mark.parametrize("leaf", NOT_REAL, ids=lambda x: str(x.dtype))
@pytest.mark.parametrize("make", [grda, dual_averaging])
def test_leaves_that_are_not_real_floating_point(make, leaf):
    params = {"layer": {"kernel": jnp.ones(2), "other": leaf}}
    message = (
        f"params that are penalised must be real floating point, got {leaf.dtype} at "
        "layer/other; a mask that is False there leaves it out."
    )
    with raises(message):
        make(0.1).init(params)
    with raises(message):
        make(0.1, mask=lambda p: True).init(params)


@pytest.mark.parametrize("leaf", NOT_REAL, ids=lambda x: str(x.dtype))
@pytest.mark.parametrize("make", [grda, lambda rate, mask: dual_averaging(rate, mask=mask)])
def test_such_leaves_are_fine_where_the_mask_is_false(make, leaf):
    params = {"layer": {"kernel": jnp.ones(2), "other": leaf}}
    tx = make(0.1, mask={"layer": {"kernel": True, "other": False}})
    state = tx.init(params)
    gradients = {"layer": {"kernel": jnp.ones(2), "other": jnp.zeros_like(leaf)}}
    updates, _ = tx.update(gradients, state, params)
    assert updates["layer"]["other"].dtype == leaf.dtype
    later = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(later["layer"]["other"], leaf)


@pytest.mark.parametrize(
    "mask",
    [{"kernel": True}, {"kernel": True, "bias": True, "scale": True}, [True, True], {}],
)
def test_a_mask_of_another_structure(mask):
    message = (
        "mask must have the structure of params or a prefix of it, "
        f"got {jax.tree.structure(mask)} for params {jax.tree.structure(PARAMS)}."
    )
    for use in (
        lambda: dual_averaging(0.1, mask=mask).init(PARAMS),
        lambda: grda(0.1, mask=lambda params: mask).init(PARAMS),
        lambda: sparsity(PARAMS, mask=mask),
        lambda: sparsity_report(PARAMS, mask=mask),
    ):
        with raises(message):
            use()


@pytest.mark.parametrize("flag", [1, 0.0, jnp.array(True), np.ones(2, bool)], ids=repr)
def test_a_mask_of_anything_but_bools(flag):
    for mask, name in ((flag, "params"), ({"kernel": flag, "bias": False}, "kernel")):
        for use in (
            lambda mask: dual_averaging(0.1, mask=mask).init(PARAMS),
            lambda mask: sparsity(PARAMS, mask=mask),
        ):
            with raises(f"mask must hold True or False, got {flag!r} at {name}."):
                use(mask)


def test_a_pattern_inside_a_tree_is_no_mask():
    with raises("mask must hold True or False, got 'kernel' at kernel."):
        dual_averaging(0.1, mask={"kernel": "kernel", "bias": False}).init(PARAMS)


OPERATORS = [soft_threshold, hard_threshold, firm_threshold]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("x", [jnp.arange(3), jnp.ones(2, bool), jnp.ones(2, jnp.complex64), 3])
def test_thresholds_of_what_is_not_real_floating_point(x, operator):
    with raises(f"x must be real floating point, got {jnp.asarray(x).dtype}."):
        operator(x, 1.0)


@pytest.mark.parametrize(
    ("shape", "threshold"), [((3,), (2,)), ((), (1,)), ((3,), (2, 3)), ((1, 3), (2, 1))]
)
def test_thresholds_that_do_not_broadcast(shape, threshold):
    for operator in OPERATORS:
        with raises(f"threshold must broadcast to the shape {shape} of x, got shape {threshold}."):
            operator(jnp.ones(shape), jnp.ones(threshold))


def test_mask_overlap():
    a, b = {"k": jnp.ones(2, bool)}, [jnp.ones(2, bool)]
    with raises(
        f"a and b must have one structure, got {jax.tree.structure(a)} and {jax.tree.structure(b)}."
    ):
        mask_overlap(a, b)
    with raises("a and b must be boolean arrays of one shape, got bool[2] and bool[3] at k."):
        mask_overlap(a, {"k": jnp.ones(3, bool)})
    with raises("a and b must be boolean arrays of one shape, got float32[2] and bool[2] at k."):
        mask_overlap({"k": jnp.ones(2)}, a)
