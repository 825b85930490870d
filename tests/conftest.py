"""What every test runs under: eight CPU devices, and draws of hypothesis that repeat."""

import os

# Both are read when JAX starts its backend, so they are set before anything imports it.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A test spends most of its time in the compiler, which is asked for less here. XLA_FLAGS given from
# outside win: XLA_FLAGS=--xla_backend_optimization_level=3 is the compiler as users have it.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        *(
            flag
            for flag in (
                "--xla_force_host_platform_device_count=8",
                "--xla_backend_optimization_level=1",
            )
            if flag.partition("=")[0] not in os.environ.get("XLA_FLAGS", "")
        ),
    ]
).strip()

import hypothesis
import jax
import pytest

# A run that fails fails again. `--hypothesis-profile=explore` looks further, with new draws.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=500)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config):
    # A warning that points at a line of the library is a mistake in the library.
    config.addinivalue_line("filterwarnings", "error:::grda_optax")


# Of the transformations under the contract those that have a richer one beside them.
SIMILAR = {
    "grda_masked",
    "sgd_number",
    "sgd_schedule",
    "sgd_own_rule",
    "adamw_power",
    "lion_power",
    "clipped",
    "frozen",
    "groups",
    "target_per_leaf",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    # A file's tests share what they compute; the contract's by transformation, since it is long.
    for item in items:
        group = str(item.path)
        if item.path.name == "test_contract.py":
            name = item.callspec.params["name"]
            group += name
            if name in SIMILAR:
                item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def float64():
    """Float64 throughout the test; the name of the switch depends on the version of JAX."""
    if hasattr(jax, "enable_x64"):
        switch = jax.enable_x64(True)
    else:
        from jax.experimental import enable_x64

        switch = enable_x64(True)
    with switch:
        yield


@pytest.fixture(scope="session")
def devices():
    """The eight devices that the parallel tests share."""
    cpus = jax.devices("cpu")
    assert len(cpus) == 8, "start pytest with no XLA_FLAGS that set another number of devices"
    return cpus
