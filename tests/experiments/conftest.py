"""Short runs on digits, prepared once for all tests."""

import dataclasses
import io
import re

import jax
import pytest
from rich.console import Console

from experiments import data
from experiments.config import Config, Runtime
from experiments.datasets.fashion_mnist import DEBIAN_FOLDER, DEBIAN_PACKAGE
from experiments.methods import METHODS
from experiments.parallel import DataParallel
from experiments.train import Job

from .forks import Forks

# 1,437 training images in batches of 128 are 11 steps an epoch.
SHORT = Config(dataset="digits", method=("grda",), epochs=3, momentum=0.9, learning_rate=0.05)

needs_fashion_mnist = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason=f"the Debian package {DEBIAN_PACKAGE} is not installed"
)


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """The same programs come again and again here, and take most of the time to compile."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits(data_dir):
    return data.load("digits", data_dir)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """Starts processes of the command line."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture
def make_job(digits):
    """``make_job(folder, config, **runtime)``: a job on one CPU device, or on more."""

    def make(folder, config=SHORT, dataset=digits, devices=1, **runtime):
        runtime = Runtime(**({"progress": False, "log_every": 5} | runtime))
        return Job(
            config=config,
            runtime=runtime,
            dataset=dataset,
            parallel=DataParallel(runtime.parallel, jax.devices("cpu")[:devices]),
            folder=folder,
            console=Console(file=io.StringIO(), width=200),
        )

    return make


@pytest.fixture
def train(make_job):
    """Trains such a job by the method that its config names."""

    def run(folder, config=SHORT, **kwargs):
        return METHODS[config.method[0]](make_job(folder, config, **kwargs))

    return run


def exactly(message):
    """For ``pytest.raises(match=...)``: this message, and nothing around it."""
    return f"^{re.escape(message)}$"


def change(config=SHORT, **fields):
    return dataclasses.replace(config, **fields)
