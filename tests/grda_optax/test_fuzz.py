"""Odd arguments of every public function: a result, or an error that names the argument.

Each case is a call that works, with one argument exchanged: by one of the odd values below, or by
what hypothesis makes up.
"""

import contextlib
import inspect
import os
import random
import re
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grda_optax
from grda_optax import Blocks, NofM, Tied, dual_averaging, group_norms

KERNEL = jnp.array([[1.0, 0.0, -2.0, 3.0], [0.5, 0.0, -1.0, 4.0]])
BIAS = jnp.array([1.0, -1.0])
PARAMS = {"a": {"kernel": KERNEL, "bias": BIAS}}
GRADIENTS = jax.tree.map(jnp.ones_like, PARAMS)
LAYERS = {"k1": jnp.zeros((4, 2)), "b1": BIAS, "k2": jnp.ones((2, 3)), "b2": jnp.ones(3)}


def loss(params, batch=None):
    inputs = jnp.ones((1, 4)) if batch is None else batch
    outputs = inputs @ params["a"]["kernel"].T + params["a"]["bias"]
    return jnp.mean((outputs - 1.0) ** 2)


def forward(params, batch):
    return batch @ params["a"]["kernel"].T


def squares(outputs, batch):
    return jnp.mean(outputs**2)


def twice(vector):
    return jax.tree.map(lambda x: 2 * x, vector)


def same(vector):
    return vector


def an_update(make):
    """One update of the transformation that ``make`` gives, from its first to its last check."""

    def call(**arguments):
        tx = make(**arguments)
        return tx.update(GRADIENTS, tx.init(PARAMS), PARAMS)

    return call


def as_threshold(make):
    return an_update(lambda **arguments: dual_averaging(make(**arguments)))


def norms(make):
    return lambda **arguments: group_norms(PARAMS, make(**arguments))


def firm(**arguments):
    return dual_averaging(0.1, prox=grda_optax.firm(**arguments))


WRAPPED = {  # what is looked at once it is used
    "grda": an_update(grda_optax.grda),
    "dual_averaging": an_update(dual_averaging),
    "prune_with": an_update(grda_optax.prune_with),
    "power_threshold": as_threshold(grda_optax.power_threshold),
    "target_sparsity": as_threshold(grda_optax.target_sparsity),
    "firm": an_update(firm),
    "Blocks": norms(Blocks),
    "NofM": norms(NofM),
    "Tied": norms(Tied),
}
KEY = jax.random.key(0)
FLAT = {"time": None, "mu": None, "cut": 0.5, "ridge": None, "eigenvectors": None, "num_iters": 3}
SGD = optax.sgd(0.1)
ROWS = Blocks((1, None))
BATCHES = [jnp.ones((3, 4)), 2 * jnp.ones((3, 4))]
FISHER = {"num_gradients": 2, "examples_per_gradient": 1, "block_size": 4, "chunk_size": 4}
CALLS = {
    "soft_threshold": {"x": BIAS, "threshold": 0.5},
    "hard_threshold": {"x": BIAS, "threshold": 0.5},
    "firm_threshold": {"x": BIAS, "threshold": 0.5, "ratio": 3.0},
    "firm": {"ratio": 3.0},
    "grda": {
        "learning_rate": 0.1,
        "c": 0.01,
        "mu": 0.6,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "mask": None,
        "accumulator_dtype": None,
    },
    "dual_averaging": {
        "threshold": 0.1,
        "prox": "soft",
        "mask": None,
        "groups": None,
        "freeze_step": None,
        "scale": None,
        "leak": 0.0,
        "accumulator_dtype": None,
    },
    "power_threshold": {"learning_rate": 0.1, "c": 0.005, "mu": 0.6},
    "target_sparsity": {
        "sparsity": 0.5,
        "begin_step": 0,
        "end_step": 5,
        "exponent": 3.0,
        "per_leaf": False,
        "update_every": 1,
        "axis_name": None,
    },
    "prune_with": {
        "base_optimizer": SGD,
        "sparsity": 0.5,
        "total_steps": 10,
        "ramp_end": 0.6,
        "freeze_at": 0.75,
        "prox": "firm",
        "ratio": 3.0,
        "leak": 1e-3,
        "per_leaf": False,
        "mask": None,
        "groups": None,
        "scale": None,
        "update_every": 1,
        "axis_name": None,
        "accumulator_dtype": None,
    },
    "sparsity": {"params": PARAMS, "mask": None},
    "sparsity_report": {"params": PARAMS, "mask": None},
    "nonzero_mask": {"params": PARAMS},
    "mask_overlap": {"a": {"k": jnp.ones(2, bool)}, "b": {"k": jnp.ones(2, bool)}},
    "suggest_c": {
        "params": PARAMS,
        "learning_rate": 0.1,
        "mu": 0.6,
        "steps": 10,
        "sparsity": 0.5,
        "mask": None,
    },
    "prune_smallest": {"params": PARAMS, "scores": PARAMS, "sparsity": 0.5, "mask": None},
    "directional_prune": {
        "params": PARAMS,
        "scores": GRADIENTS,
        "strength": 0.1,
        "sparsity": None,
        "mask": None,
    },
    "to_bcoo": {"weight": KERNEL},
    "to_csr": {"weight": KERNEL},
    "from_bcoo": {"sparse": grda_optax.to_bcoo(KERNEL)},
    "from_csr": {"sparse": None},  # which is made when it is called: scipy may be missing
    "group_norms": {"params": PARAMS, "groups": ROWS},
    "group_threshold": {"params": PARAMS, "threshold": 0.1, "groups": ROWS, "prox": "soft"},
    "Blocks": {"shape": (1, None), "pattern": "kernel", "scale": 1.0},
    "NofM": {"n": 2, "m": 4, "pattern": "kernel", "axis": -1, "scale": 1.0},
    "Tied": {"members": {"a/kernel": 0}, "followers": {"a/bias": 0}, "scale": 1.0},
    "compact": {"params": PARAMS, "ties": Tied({"a/kernel": 1})},
    "fold_constants": {
        "params": LAYERS,
        "kernel": "k1",
        "bias": "b1",
        "next_kernel": "k2",
        "next_bias": "b2",
        "activation": jax.nn.relu,
    },
    "flat_projection": {"matvec": twice, "vector": PARAMS, **FLAT},
    "directional_scores": {"params": PARAMS, "matvec": twice, "mask": None, **FLAT},
    "spectral_function": {
        "matvec": twice,
        "vector": PARAMS,
        "function": np.exp,
        "num_iters": 2,
        "keep_basis": True,
    },
    "top_eigenpairs": {
        "matvec": twice,
        "like": PARAMS,
        "k": 1,
        "which": "largest",
        "tolerance": None,
        "num_vectors": None,
        "max_products": None,
        "key": KEY,
    },
    "valley_prune": {
        "params": PARAMS,
        "project": same,
        "strength": 0.1,
        "mask": None,
        "tolerance": 1e-4,
        "max_iterations": 10,
    },
    "hvp": {"loss": loss, "params": PARAMS, "vector": PARAMS, "batches": None, "axis_name": None},
    "gauss_newton_vp": {
        "forward": forward,
        "loss": squares,
        "params": PARAMS,
        "vector": PARAMS,
        "batches": BATCHES,
        "axis_name": None,
    },
    "obd_saliency": {
        "loss": loss,
        "params": PARAMS,
        "batches": BATCHES,
        "method": "exact",
        "num_samples": 2,
        "key": KEY,
        "chunk_size": 4,
        "mask": None,
    },
    "obs_saliency": {
        "loss": loss,
        "params": PARAMS,
        "batches": BATCHES,
        "inverse": "exact",
        "damping": 1e-2,
        "mask": None,
        **FISHER,
    },
    "obs_prune": {
        "loss": loss,
        "params": PARAMS,
        "batches": BATCHES,
        "sparsity": 0.5,
        "inverse": "exact",
        "damping": 1e-2,
        "rounds": 1,
        "schedule": None,
        "mask": None,
        **FISHER,
    },
    "sequential_directional_prune": {
        "loss": loss,
        "params": PARAMS,
        "batches": None,
        "sparsity": 0.3,
        "mask": None,
        "curvature": None,
        "round_size": 0.5,
        "num_iters": 3,
        "cut": 0.1,
        "ridge": None,
        "progress": None,
    },
}
# Of the classes only those that a user makes; files have tests of their own.
LEFT_OUT = {
    *("Count", "Eigenpairs", "FlatProjection", "GRDAState", "ProximalOperator", "PruningState"),
    *("Saliency", "SparsityReport", "SpectralValue", "Surgery", "ThresholdRule", "ValleyPoint"),
    *("load_sparse", "save_sparse"),
}


class Odd:
    def __repr__(self):
        return "<odd>"


VALUES = [
    *(None, True, False, -1, 0, 1, 2, 10**30, -0.5, 0.0, 1e-30, 0.5, 1.0, 1e300),
    *(float("nan"), float("inf"), 1j, "", "kernel", "(", "nowhere", b"x"),
    *((), [], {}, [1.0], (0.1, 0.2), {"a": 1.0}, {"a": {"kernel": 1.0, "bias": None}}, Odd()),
    *(np.float32(0.5), np.float64("nan"), np.int64(-3), np.array(0.5), np.array([1, 2])),
    *(np.array("x"), np.array([None]), np.zeros((0, 3))),
    *(jnp.array(0.5), jnp.array(-1), jnp.ones((2, 2)), jnp.ones(3, jnp.complex64)),
    *(jnp.ones(3, jnp.bfloat16), jnp.zeros(0), jnp.array([True, False]), KEY),
    *(jax.ShapeDtypeStruct((2,), jnp.float32), SGD),
    {"a": {"kernel": KERNEL.T, "bias": BIAS}},
    {"a": {"kernel": KERNEL}},
    {"a": {"kernel": KERNEL * jnp.nan, "bias": BIAS}},
    jax.tree.map(lambda x: x.astype(jnp.int32), PARAMS),
    jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS),
    jax.tree.map(np.asarray, PARAMS),
    jax.tree.map(lambda x: x == 0, PARAMS),
]
MORE = {"members", "followers", "shape", "pattern"}  # arguments of Tied and Blocks, inside others
OWN = {"loss", "forward", "squares"}  # functions of this file: what they raise is the caller's


def complaint(name, argument, value):
    """What is wrong with the error of a call, if it ends in one; None where nothing is."""
    call = WRAPPED.get(name, getattr(grda_optax, name))
    arguments = {**CALLS[name], argument: value}
    try:
        call(**arguments)
    except Exception as error:
        if isinstance(error, ValueError | TypeError):
            first = str(error).splitlines()[0]
            # With "keys" JAX says of a dict that it cannot sort them.
            holds = set(re.findall(r"\w+", first)) & {*arguments, *MORE, "keys"}
        else:
            holds = isinstance(error, NameError) and "unbound axis name" in str(error)
        frames = traceback.extract_tb(error.__traceback__)
        if not holds and not any(x.filename == __file__ and x.name in OWN for x in frames):
            return f"{name}({argument}={value!r}): {type(error).__name__}: {error}"
    return None


def check_call(name, argument, value):
    assert complaint(name, argument, value) is None


CASES = [(name, argument) for name, arguments in CALLS.items() for argument in arguments]
QUICK = {"soft_threshold", "firm_threshold", "to_csr", "from_csr", "Blocks", "Tied", "compact"}
QUICK |= {"mask_overlap", "nonzero_mask", "fold_constants", "suggest_c", "prune_smallest"}


def test_every_public_function_is_called():
    assert set(CALLS) | LEFT_OUT == {
        name
        for name, value in vars(grda_optax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    for name, arguments in CALLS.items():
        wanted = inspect.signature(getattr(grda_optax, name)).parameters
        assert set(arguments) == set(wanted), name


def test_a_few_odd_arguments():
    """400 cases, of functions that compile nothing."""
    cases = [(*case, value) for case in CASES if case[0] in QUICK for value in VALUES]
    for case in random.Random(0).sample(cases, 400):
        check_call(*case)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_odd_arguments():
    """500 of all that there are; with GRDA_FUZZ=all all 10,395 in 2 to 4 minutes."""
    cases = [(*case, value) for case in CASES for value in VALUES]
    random.Random(0).shuffle(cases)
    number = len(cases) if os.environ.get("GRDA_FUZZ") == "all" else 500
    complaints = [x for x in (complaint(*case) for case in cases[:number]) if x is not None]
    assert not complaints, "\n".join(complaints)


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
anything = st.recursive(
    numbers | st.binary(max_size=3) | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "kernel", "bias", 1]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=100)
@given(st.sampled_from([case for case in CASES if case[0] in QUICK]), anything)
def test_arguments_that_are_made_up(case, value):
    check_call(*case, value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
@given(st.sampled_from([case for case in CASES if case[0] != "prune_with"]), anything)
def test_more_arguments_that_are_made_up(case, value):
    check_call(*case, value)


def test_a_file_is_not_written_where_its_params_are_refused(tmp_path):
    path = Path(tmp_path / "x")
    for value in VALUES:
        with contextlib.suppress(ValueError, TypeError):
            grda_optax.save_sparse(path, value)
        if path.exists():
            restored = grda_optax.load_sparse(path)
            assert len(jax.tree.leaves(restored)) == len(jax.tree.leaves(value))
            path.unlink()
            continue
        with pytest.raises((ValueError, TypeError), match=r"^params must"):
            grda_optax.save_sparse(path, value)
        assert list(tmp_path.iterdir()) == []
    for value in VALUES:
        if isinstance(value, str):
            continue
        for call in (grda_optax.load_sparse, lambda x: grda_optax.save_sparse(x, PARAMS)):
            with pytest.raises(ValueError, match=r"^path must be a str or an os"):
                call(value)
    for call in (grda_optax.load_sparse, lambda x: grda_optax.save_sparse(x, PARAMS)):
        with pytest.raises(ValueError, match=r"^path must be a str or an os"):
            call("nul" + chr(0))
